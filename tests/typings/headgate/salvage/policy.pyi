from src.salvage.policy import *
