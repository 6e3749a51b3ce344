from src.storage import *
