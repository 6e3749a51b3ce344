from src.admission.ceiling import *
