from src.storage.postgres_functions import *
