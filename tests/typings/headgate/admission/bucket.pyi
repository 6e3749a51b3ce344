from src.admission.bucket import *
