from src.restart.aggregation import *
