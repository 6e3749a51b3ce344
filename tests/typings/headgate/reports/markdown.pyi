from src.reports.markdown import *
