from src.storage.postgres_errors import *
