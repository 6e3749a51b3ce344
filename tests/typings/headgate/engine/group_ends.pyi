from src.engine.group_ends import *
