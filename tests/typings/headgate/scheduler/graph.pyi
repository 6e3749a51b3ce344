from src.scheduler.graph import *
