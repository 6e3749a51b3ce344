from src.admission.throughput import *
