from src.engine.meter import *
