from src.storage.postgres_link import *
