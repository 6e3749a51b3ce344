from src.outbox.core import *
