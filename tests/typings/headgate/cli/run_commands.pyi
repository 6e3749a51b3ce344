from src.cli.run_commands import *
