from src.cli.durations import *
