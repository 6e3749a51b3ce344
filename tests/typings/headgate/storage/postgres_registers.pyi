from src.storage.postgres_registers import *
