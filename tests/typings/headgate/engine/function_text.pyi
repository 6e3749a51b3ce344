from src.engine.function_text import *
