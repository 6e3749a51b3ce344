from src.admission.memory import *
