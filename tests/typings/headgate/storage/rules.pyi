from src.storage.rules import *
