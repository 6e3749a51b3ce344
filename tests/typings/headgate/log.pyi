from src.log import *
