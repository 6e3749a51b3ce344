from src.testing.provider.answers import *
