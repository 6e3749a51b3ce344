from src.admission.limits_book import *
