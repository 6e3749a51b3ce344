from src.events import *
