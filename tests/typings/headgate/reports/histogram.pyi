from src.reports.histogram import *
