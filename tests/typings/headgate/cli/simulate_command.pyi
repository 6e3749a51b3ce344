from src.cli.simulate_command import *
