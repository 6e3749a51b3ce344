from src.cli.ctl_commands import *
