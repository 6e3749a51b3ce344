from src.salvage.ledger import *
