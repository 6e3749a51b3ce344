from src.admission.headers import *
