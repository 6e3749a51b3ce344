from src.testing.analysis import *
