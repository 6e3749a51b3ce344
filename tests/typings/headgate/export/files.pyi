from src.export.files import *
