from src.admission.retraction import *
