from src.admission.header_values import *
