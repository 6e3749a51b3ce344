from src.storage.generations import *
