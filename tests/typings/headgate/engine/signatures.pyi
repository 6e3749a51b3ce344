from src.engine.signatures import *
