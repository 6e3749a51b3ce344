from src.engine.resuming import *
