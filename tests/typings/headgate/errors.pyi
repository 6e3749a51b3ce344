from src.errors import *
