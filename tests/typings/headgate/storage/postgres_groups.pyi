from src.storage.postgres_groups import *
