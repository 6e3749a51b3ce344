from src.admission.memory_plain import *
