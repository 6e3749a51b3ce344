from src.export.rows import *
