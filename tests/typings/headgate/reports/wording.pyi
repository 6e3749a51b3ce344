from src.reports.wording import *
