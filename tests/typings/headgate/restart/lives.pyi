from src.restart.lives import *
