from src.engine.deadlines import *
