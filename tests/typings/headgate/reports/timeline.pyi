from src.reports.timeline import *
