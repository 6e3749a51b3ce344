from src.engine.left_lanes import *
