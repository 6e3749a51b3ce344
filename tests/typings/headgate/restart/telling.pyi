from src.restart.telling import *
