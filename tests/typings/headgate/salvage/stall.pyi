from src.salvage.stall import *
