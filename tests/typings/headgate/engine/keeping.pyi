from src.engine.keeping import *
