from src.scheduler.frontier import *
