from src.testing.store import *
