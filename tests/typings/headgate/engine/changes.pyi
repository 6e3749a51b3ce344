from src.engine.changes import *
