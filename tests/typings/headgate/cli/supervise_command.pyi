from src.cli.supervise_command import *
