from src.export.html import *
