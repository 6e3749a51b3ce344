from src.engine.advice import *
