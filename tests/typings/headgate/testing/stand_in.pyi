from src.testing.stand_in import *
