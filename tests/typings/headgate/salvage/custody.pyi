from src.salvage.custody import *
