from src.salvage.breaker import *
