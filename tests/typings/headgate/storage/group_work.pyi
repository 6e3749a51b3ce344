from src.storage.group_work import *
