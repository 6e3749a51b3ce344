from src.testing.store.commits import *
