from src.cli.row_files import *
