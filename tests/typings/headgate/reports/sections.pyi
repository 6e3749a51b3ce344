from src.reports.sections import *
