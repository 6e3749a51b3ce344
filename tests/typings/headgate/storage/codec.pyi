from src.storage.codec import *
