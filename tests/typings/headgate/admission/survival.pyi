from src.admission.survival import *
