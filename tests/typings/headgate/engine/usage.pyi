from src.engine.usage import *
