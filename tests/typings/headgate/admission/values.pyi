from src.admission.values import *
