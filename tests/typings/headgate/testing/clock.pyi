from src.testing.clock import *
