from src.engine.effects import *
