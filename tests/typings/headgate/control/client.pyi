from src.control.client import *
