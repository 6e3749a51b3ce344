"""The values that the scheduler speaks in: tasks, the states of cells, and what one event brought about."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

__all__ = [
    "DONE",
    "FAILED",
    "HELD",
    "READY",
    "SKIPPED",
    "WAITING",
    "CellState",
    "Closed",
    "Counts",
    "Progress",
    "Ready",
    "Task",
]


class CellState(IntEnum):
    """Where a cell or a group task stands. READY means queued or running; from DONE on it never changes."""

    WAITING = 0
    READY = 1
    HELD = 2
    DONE = 3
    FAILED = 4
    SKIPPED = 5


# The same as plain integers: comparing enum members would double the cost of a cell.
WAITING: Final = 0
READY: Final = 1
HELD: Final = 2
DONE: Final = 3
FAILED: Final = 4
SKIPPED: Final = 5


class Task(NamedTuple):
    """What is dispatched: a column over the row ``unit``, or a group column over the row group ``unit``."""

    column: int
    unit: int


Ready: TypeAlias = tuple[int, int]
"""A task that waits for its turn, as a plain tuple: thousands may wait, and garbage collection passes over plain tuples
of numbers."""

Closed: TypeAlias = tuple[int, int, int, str]
"""One cell that reached its terminal state: its row and column, that state, and why if it was not done. A plain tuple:
there is one for every cell, and a class of its own makes it three times as long to build and to read."""


@dataclass(slots=True, init=False)
class Progress:
    """What one event brought about, in order.

    ``cancel`` names tasks that were ready, running or held and do not matter any more. ``closed`` includes
    the cells of the task that was reported; it is empty for a report that came too late.
    ``finished_groups`` are sealed groups of which every row is finished.
    """

    ready: list[Ready]
    closed: list[Closed]
    cancel: list[Task]
    finished_rows: list[int]
    finished_groups: list[int]

    # Written out: five default factories would cost more than all else that a cell costs here.
    def __init__(self) -> None:
        self.ready = []
        self.closed = []
        self.cancel = []
        self.finished_rows = []
        self.finished_groups = []


@dataclass(frozen=True, slots=True)
class Counts:
    """One look at the frontier. ``open_rows`` have a cell that is not closed; ``idle_rows`` among them have no ready
    cell of their own, and are held back or wait for their group. Terminal cells are counted since the start, those of
    forgotten rows included.
    """

    rows: int
    open_rows: int
    idle_rows: int
    ready_tasks: int
    held_tasks: int
    done: int
    failed: int
    skipped: int
