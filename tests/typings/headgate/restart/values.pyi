from src.restart.values import *
