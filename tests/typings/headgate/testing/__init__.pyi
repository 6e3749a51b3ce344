from src.testing import *
