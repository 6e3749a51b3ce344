from src.restart.asking import *
