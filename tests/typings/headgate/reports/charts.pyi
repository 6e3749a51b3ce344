from src.reports.charts import *
