from src.testing.outbox.machine import *
