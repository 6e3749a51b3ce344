from src.storage.sqlite_writer import *
