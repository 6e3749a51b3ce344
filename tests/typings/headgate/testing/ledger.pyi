from src.testing.ledger import *
