from src.reports.data import *
