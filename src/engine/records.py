"""Turning what happened into records for the store. Decides nothing."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..storage.codec import encode
from ..storage.ports import HeldRecord, SpentRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..salvage.decisions import HeldItem
    from ..scheduler.frontier import Task
    from ..values import Usage
    from .journal import Journal
    from .values import ColumnPlan

__all__ = ["Records"]


class Records:
    """Writes the records of one run into its journal, stamped with wall-clock times."""

    __slots__ = ("_journal", "_plans", "_spent", "wall_clock")

    def __init__(self, journal: Journal, plans: Sequence[ColumnPlan], wall_clock: Callable[[], float]) -> None:
        self._journal = journal
        self._plans = plans
        self.wall_clock = wall_clock
        self._spent = 0  # numbers the attempts that used tokens and failed

    def held(self, item: HeldItem[Task], row: int, now: float) -> HeldRecord:
        """What there is to say of a task that is held back, as the record of ``row``. Without a time of its own it may
        be tried again at once.
        """
        column = self._plans[item.task.column].name
        not_before = self.wall_clock() + (0.0 if item.not_before == inf else max(0.0, item.not_before - now))
        return HeldRecord(row, column, item.reason.value, not_before, item.attempts, encode(item.history))

    def hold(self, record: HeldRecord, rows: Iterable[int]) -> None:
        """The task is held back for each of ``rows``."""
        hold = self._journal.hold
        for row in rows:
            hold(HeldRecord(row, *record[1:]))

    def spent(self, row: int, column: int, reason: str, usage: Usage) -> None:
        """An attempt failed after it used tokens."""
        self._spent += 1
        self._journal.spent(SpentRecord(row, self._plans[column].name, self._spent, reason, usage))
