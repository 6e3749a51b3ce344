from src.storage.sqlite_file import *
