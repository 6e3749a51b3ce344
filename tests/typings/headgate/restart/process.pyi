from src.restart.process import *
