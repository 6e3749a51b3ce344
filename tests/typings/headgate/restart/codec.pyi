from src.restart.codec import *
