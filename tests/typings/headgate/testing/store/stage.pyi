from src.testing.store.stage import *
