from src.outbox.outbox import *
