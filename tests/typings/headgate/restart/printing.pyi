from src.restart.printing import *
