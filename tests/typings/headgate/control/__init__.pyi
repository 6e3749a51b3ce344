from src.control import *
