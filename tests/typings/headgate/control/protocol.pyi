from src.control.protocol import *
