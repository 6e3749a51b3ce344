from src.admission.rate_stated import *
