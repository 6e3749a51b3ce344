from src.admission.lane import *
