from src.engine.telling import *
