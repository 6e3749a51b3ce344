from src.engine.flight import *
