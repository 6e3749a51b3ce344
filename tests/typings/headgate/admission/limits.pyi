from src.admission.limits import *
