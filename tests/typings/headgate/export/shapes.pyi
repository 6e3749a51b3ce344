from src.export.shapes import *
