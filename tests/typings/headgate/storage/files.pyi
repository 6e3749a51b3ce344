from src.storage.files import *
