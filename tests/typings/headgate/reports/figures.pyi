from src.reports.figures import *
