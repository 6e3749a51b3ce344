from src.storage.run_logs import *
