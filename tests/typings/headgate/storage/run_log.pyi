from src.storage.run_log import *
