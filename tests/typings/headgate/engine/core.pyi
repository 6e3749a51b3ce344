from src.engine.core import *
