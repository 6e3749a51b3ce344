from src.outbox.ports import *
