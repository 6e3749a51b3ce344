from src.restart.mcp import *
