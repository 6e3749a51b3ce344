from src.testing.simulation import *
