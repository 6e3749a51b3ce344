from src.engine.sharing import *
