from src.storage.postgres_records import *
