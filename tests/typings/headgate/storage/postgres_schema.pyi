from src.storage.postgres_schema import *
