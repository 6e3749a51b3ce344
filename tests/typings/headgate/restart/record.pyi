from src.restart.record import *
