from src.restart.rules import *
