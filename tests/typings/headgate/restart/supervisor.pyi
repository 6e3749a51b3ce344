from src.restart.supervisor import *
