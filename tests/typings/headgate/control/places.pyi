from src.control.places import *
