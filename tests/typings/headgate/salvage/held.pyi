from src.salvage.held import *
