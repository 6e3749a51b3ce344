from src.reports.tables import *
