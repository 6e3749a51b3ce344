from src.clients.bodies import *
