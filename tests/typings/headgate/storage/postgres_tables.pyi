from src.storage.postgres_tables import *
