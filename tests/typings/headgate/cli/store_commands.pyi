from src.cli.store_commands import *
