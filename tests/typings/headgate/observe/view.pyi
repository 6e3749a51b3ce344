from src.observe.view import *
