from src.storage.sqlite_schema import *
