from src.cli.demo import *
