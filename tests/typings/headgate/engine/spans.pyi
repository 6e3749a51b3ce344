from src.engine.spans import *
