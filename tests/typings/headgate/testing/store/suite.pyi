from src.testing.store.suite import *
