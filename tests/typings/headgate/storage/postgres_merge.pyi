from src.storage.postgres_merge import *
