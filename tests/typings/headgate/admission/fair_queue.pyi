from src.admission.fair_queue import *
