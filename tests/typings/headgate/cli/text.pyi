from src.cli.text import *
