from src.admission.inference import *
