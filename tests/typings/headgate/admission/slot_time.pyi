from src.admission.slot_time import *
