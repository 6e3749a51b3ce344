from src.engine.report import *
