from src import *
