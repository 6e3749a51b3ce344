from src.clients.naming import *
