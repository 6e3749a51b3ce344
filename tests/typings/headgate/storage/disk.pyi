from src.storage.disk import *
