from src.scheduler.row_group import *
