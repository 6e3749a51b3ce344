from src.testing.outbox import *
