from src.admission.rate_window import *
