from src.testing.store.registers import *
