from src.testing.provider.dialects import *
