from src.testing.store.sweeps import *
