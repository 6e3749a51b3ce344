from src.engine.loop import *
