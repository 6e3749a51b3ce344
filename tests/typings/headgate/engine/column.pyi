from src.engine.column import *
