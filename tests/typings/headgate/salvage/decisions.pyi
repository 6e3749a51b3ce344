from src.salvage.decisions import *
