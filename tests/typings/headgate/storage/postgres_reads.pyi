from src.storage.postgres_reads import *
