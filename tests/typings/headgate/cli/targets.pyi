from src.cli.targets import *
