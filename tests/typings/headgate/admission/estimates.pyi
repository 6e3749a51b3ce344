from src.admission.estimates import *
