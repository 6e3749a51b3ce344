from src.engine.intake import *
