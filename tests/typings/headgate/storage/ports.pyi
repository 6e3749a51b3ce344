from src.storage.ports import *
