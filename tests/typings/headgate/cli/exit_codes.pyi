from src.cli.exit_codes import *
