from src.export import *
