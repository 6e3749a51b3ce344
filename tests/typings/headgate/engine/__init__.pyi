from src.engine import *
