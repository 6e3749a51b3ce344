from src.storage.sqlite_format import *
