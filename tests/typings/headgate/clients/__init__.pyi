from src.clients import *
