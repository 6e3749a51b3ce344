from src.admission.controller import *
