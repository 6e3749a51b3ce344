from src.storage.opening import *
