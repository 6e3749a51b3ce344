from src.restart.configured import *
