from src.engine.listeners import *
