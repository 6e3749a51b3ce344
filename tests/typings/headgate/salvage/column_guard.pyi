from src.salvage.column_guard import *
