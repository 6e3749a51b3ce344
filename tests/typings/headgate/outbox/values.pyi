from src.outbox.values import *
