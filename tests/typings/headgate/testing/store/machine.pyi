from src.testing.store.machine import *
