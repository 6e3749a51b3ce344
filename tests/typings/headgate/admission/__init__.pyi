from src.admission import *
