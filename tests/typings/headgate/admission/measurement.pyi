from src.admission.measurement import *
