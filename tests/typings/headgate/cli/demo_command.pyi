from src.cli.demo_command import *
