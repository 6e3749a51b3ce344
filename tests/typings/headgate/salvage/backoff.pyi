from src.salvage.backoff import *
