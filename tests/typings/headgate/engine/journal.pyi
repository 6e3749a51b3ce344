from src.engine.journal import *
