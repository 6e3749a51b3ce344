from src.restart.http import *
