from src.observe.conventions import *
