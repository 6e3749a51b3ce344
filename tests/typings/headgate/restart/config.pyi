from src.restart.config import *
