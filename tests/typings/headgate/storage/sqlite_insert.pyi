from src.storage.sqlite_insert import *
