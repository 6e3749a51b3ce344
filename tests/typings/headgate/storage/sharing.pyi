from src.storage.sharing import *
