from src.engine.forecast_text import *
