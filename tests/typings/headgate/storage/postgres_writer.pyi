from src.storage.postgres_writer import *
