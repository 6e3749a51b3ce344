from src.outbox.machine import *
