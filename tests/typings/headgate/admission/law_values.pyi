from src.admission.law_values import *
