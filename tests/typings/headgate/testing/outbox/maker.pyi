from src.testing.outbox.maker import *
