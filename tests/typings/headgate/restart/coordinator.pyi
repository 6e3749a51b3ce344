from src.restart.coordinator import *
