from src.admission.gate import *
