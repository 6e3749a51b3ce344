from src.salvage import *
