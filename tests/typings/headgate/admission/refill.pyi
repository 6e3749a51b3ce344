from src.admission.refill import *
