from src.storage.file_entry import *
