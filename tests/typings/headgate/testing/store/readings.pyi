from src.testing.store.readings import *
