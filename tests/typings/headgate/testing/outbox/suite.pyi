from src.testing.outbox.suite import *
