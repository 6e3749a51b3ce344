from src.engine.jobs import *
