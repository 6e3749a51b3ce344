from src.control.server import *
