from src.salvage.dialects import *
