from src.storage.memory import *
