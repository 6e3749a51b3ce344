from src.engine.workers import *
