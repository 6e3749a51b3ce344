from src.engine.sampling import *
