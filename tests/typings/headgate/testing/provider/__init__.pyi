from src.testing.provider import *
