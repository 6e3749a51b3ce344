from src.observe.rates import *
