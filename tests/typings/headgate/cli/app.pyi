from src.cli.app import *
