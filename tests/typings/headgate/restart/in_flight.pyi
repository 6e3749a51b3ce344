from src.restart.in_flight import *
