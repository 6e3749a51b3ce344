from src.admission.concurrency import *
