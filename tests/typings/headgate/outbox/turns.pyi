from src.outbox.turns import *
