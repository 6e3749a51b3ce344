from src.engine.planned import *
