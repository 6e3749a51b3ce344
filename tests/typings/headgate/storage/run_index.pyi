from src.storage.run_index import *
