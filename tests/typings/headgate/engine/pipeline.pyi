from src.engine.pipeline import *
