from src.observe import *
