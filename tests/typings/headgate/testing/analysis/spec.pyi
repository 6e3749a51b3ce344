from src.testing.analysis.spec import *
