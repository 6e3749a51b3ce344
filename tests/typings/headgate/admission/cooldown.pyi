from src.admission.cooldown import *
