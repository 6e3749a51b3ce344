from src.admission.growth import *
