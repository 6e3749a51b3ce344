from src.storage.sqlite import *
