from src.engine.controls import *
