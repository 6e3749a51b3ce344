from src.prices import *
