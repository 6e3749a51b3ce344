from src.scheduler.tasks import *
