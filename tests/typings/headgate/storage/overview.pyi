from src.storage.overview import *
