from src.storage.payload_files import *
