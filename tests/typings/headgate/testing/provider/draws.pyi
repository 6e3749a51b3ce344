from src.testing.provider.draws import *
