from src.wakeup import *
