from src.testing.provider.timeline import *
