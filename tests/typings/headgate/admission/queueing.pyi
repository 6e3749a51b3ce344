from src.admission.queueing import *
