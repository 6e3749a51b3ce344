from src.testing.strategies import *
