from src.storage.claims import *
