from src.cli.life import *
