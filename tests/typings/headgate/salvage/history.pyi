from src.salvage.history import *
