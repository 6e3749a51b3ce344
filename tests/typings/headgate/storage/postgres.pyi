from src.storage.postgres import *
