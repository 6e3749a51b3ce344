from src.engine.fingerprints import *
