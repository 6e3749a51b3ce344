from src.restart.child import *
