from src.reports.series import *
