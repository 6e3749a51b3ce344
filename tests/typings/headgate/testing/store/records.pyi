from src.testing.store.records import *
