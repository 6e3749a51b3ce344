from src.admission.scope import *
