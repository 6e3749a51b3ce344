from src.testing.analysis.server import *
