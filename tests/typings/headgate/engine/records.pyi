from src.engine.records import *
