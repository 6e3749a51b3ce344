from src.control.ports import *
