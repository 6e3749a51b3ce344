from src.storage.run_sweep import *
