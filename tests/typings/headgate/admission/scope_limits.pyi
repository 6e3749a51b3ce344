from src.admission.scope_limits import *
