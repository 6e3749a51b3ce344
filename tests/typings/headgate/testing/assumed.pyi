from src.testing.assumed import *
