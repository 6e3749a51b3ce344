from src.engine.turnstile import *
