from src.observe.progress import *
