from src.export.jsonl import *
