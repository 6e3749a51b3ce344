from src.restart.ports import *
