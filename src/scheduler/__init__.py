"""Which task next: a validated graph of columns, readiness per row, fair order of what is ready, bounded open rows.

Pure machines throughout; the engine performs what they decide.
"""

from __future__ import annotations

from .dispatcher import Dispatcher
from .frontier import Frontier
from .graph import ColumnSpec, Graph, Scope
from .tasks import CellState, Closed, Counts, Progress, Task
from .window import Window

__all__ = [
    "CellState",
    "Closed",
    "ColumnSpec",
    "Counts",
    "Dispatcher",
    "Frontier",
    "Graph",
    "Progress",
    "Scope",
    "Task",
    "Window",
]
