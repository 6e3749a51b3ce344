from src.storage.signals import *
