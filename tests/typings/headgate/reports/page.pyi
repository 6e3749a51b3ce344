from src.reports.page import *
