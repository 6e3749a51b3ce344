from src.salvage.salvage import *
