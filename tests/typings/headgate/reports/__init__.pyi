from src.reports import *
