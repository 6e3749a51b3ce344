from src.cli.arguments import *
