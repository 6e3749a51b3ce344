from src.engine.forecast import *
