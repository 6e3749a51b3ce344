from src.outbox.sqlite import *
