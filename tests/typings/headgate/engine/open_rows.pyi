from src.engine.open_rows import *
