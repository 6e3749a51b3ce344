from src.reports.reading import *
