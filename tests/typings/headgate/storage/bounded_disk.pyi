from src.storage.bounded_disk import *
