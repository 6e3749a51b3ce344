from src.values import *
