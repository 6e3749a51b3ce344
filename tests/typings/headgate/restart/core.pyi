from src.restart.core import *
