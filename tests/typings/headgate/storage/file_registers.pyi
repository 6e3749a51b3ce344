from src.storage.file_registers import *
