from src.admission.moments import *
