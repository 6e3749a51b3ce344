from src.cli import *
