from src.engine.event_lines import *
