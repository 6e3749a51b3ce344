from src.storage.sqlite_records import *
