from src.outbox.breaker import *
