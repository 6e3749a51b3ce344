from src.restart import *
