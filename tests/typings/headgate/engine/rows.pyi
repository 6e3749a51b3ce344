from src.engine.rows import *
