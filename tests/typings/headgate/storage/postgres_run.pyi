from src.storage.postgres_run import *
