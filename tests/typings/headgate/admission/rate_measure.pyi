from src.admission.rate_measure import *
