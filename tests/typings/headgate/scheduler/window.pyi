from src.scheduler.window import *
