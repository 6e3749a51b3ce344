from src.admission.probing import *
