from src.cli.running import *
