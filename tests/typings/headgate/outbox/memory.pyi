from src.outbox.memory import *
