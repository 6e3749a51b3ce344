from src.engine.values import *
