from src.salvage.pacing import *
