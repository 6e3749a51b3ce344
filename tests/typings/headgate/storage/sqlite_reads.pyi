from src.storage.sqlite_reads import *
