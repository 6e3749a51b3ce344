from src.scheduler import *
