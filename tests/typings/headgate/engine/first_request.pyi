from src.engine.first_request import *
