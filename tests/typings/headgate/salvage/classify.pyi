from src.salvage.classify import *
