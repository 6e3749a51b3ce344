from src.admission.rate import *
