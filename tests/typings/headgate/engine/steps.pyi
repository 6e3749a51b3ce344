from src.engine.steps import *
