from src.admission.rate_learned import *
