from src.outbox import *
