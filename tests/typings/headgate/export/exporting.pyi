from src.export.exporting import *
