from src.testing.analysis.process import *
