from src.testing.store.naive import *
