from src.observe.event_log import *
