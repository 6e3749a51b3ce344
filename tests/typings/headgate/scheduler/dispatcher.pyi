from src.scheduler.dispatcher import *
