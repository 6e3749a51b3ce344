from src.restart.sources import *
