from src.engine.supervised import *
