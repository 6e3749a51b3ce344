from src.engine.dispatch import *
