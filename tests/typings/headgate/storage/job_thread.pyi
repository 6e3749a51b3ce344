from src.storage.job_thread import *
