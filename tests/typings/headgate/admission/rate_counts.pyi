from src.admission.rate_counts import *
