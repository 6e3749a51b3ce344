from src.testing.told import *
