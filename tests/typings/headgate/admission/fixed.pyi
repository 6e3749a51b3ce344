from src.admission.fixed import *
