from src.engine.interrupts import *
