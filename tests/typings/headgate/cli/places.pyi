from src.cli.places import *
