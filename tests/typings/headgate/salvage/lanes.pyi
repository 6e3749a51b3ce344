from src.salvage.lanes import *
