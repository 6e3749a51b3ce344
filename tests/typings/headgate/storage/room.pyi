from src.storage.room import *
