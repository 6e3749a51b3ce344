from src.salvage.budget import *
