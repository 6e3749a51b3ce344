from src.reports.glance import *
