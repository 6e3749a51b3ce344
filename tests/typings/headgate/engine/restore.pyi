from src.engine.restore import *
