from src.engine.committer import *
