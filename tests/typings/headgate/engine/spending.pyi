from src.engine.spending import *
