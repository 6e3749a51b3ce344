from src.storage.references import *
