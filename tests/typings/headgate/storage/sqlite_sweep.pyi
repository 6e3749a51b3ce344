from src.storage.sqlite_sweep import *
