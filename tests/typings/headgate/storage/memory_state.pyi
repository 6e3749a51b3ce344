from src.storage.memory_state import *
