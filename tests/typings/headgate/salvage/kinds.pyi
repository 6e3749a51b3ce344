from src.salvage.kinds import *
