from src.cli.data import *
