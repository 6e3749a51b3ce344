from src.export.parquet import *
