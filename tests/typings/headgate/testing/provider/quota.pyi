from src.testing.provider.quota import *
