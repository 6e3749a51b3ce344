from src.outbox.http import *
