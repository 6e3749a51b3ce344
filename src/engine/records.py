"""Turning what happened into records for the store. Decides nothing."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..storage.codec import encode
from ..storage.ports import CellRecord, CellStatus, HeldRecord, SpentRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..salvage.decisions import Fail, HeldItem
    from ..scheduler.frontier import Task
    from ..values import Usage
    from .journal import Journal
    from .values import CellResult, ColumnPlan

__all__ = ["Records"]

_DONE = CellStatus.DONE  # named once: it is written for every cell, and looking up an enum's member is slow


class Records:
    """Writes the records of one run into its journal, stamped with wall-clock times."""

    __slots__ = ("_journal", "_plans", "_wall_clock")

    def __init__(self, journal: Journal, plans: Sequence[ColumnPlan], wall_clock: Callable[[], float]) -> None:
        self._journal = journal
        self._plans = plans
        self._wall_clock = wall_clock

    def done(self, column: int, result: CellResult, usage: Usage, attempts: int) -> None:
        """A cell has its value."""
        self._journal.cell(
            CellRecord(
                result.row,
                self._plans[column].name,
                _DONE,
                result.payload,
                attempts=attempts,
                usage=usage,
                finished_at=self._wall_clock(),
            )
        )

    def failed(self, row: int, column: int, fail: Fail, usage: Usage) -> None:
        """A cell failed for good."""
        self._journal.cell(
            CellRecord(
                row,
                self._plans[column].name,
                CellStatus.FAILED,
                None,
                reason=fail.kind.value,
                message=fail.message,
                attempts=fail.attempts,
                http_status=fail.status,
                usage=usage,
                finished_at=self._wall_clock(),
            )
        )

    def skipped(self, row: int, column: int, reason: str) -> None:
        """A cell is not needed."""
        name = self._plans[column].name
        stamp = self._wall_clock()
        self._journal.cell(CellRecord(row, name, CellStatus.SKIPPED, None, reason=reason, finished_at=stamp))

    def held(self, item: HeldItem[Task], row: int, now: float) -> HeldRecord:
        """What there is to say of a task that is held back, as the record of ``row``. Without a time of its own it may
        be tried again at once.
        """
        column = self._plans[item.task.column].name
        not_before = self._wall_clock() + (0.0 if item.not_before == inf else max(0.0, item.not_before - now))
        return HeldRecord(row, column, item.reason.value, not_before, item.attempts, encode(item.history))

    def hold(self, record: HeldRecord, rows: Iterable[int]) -> None:
        """The task is held back for each of ``rows``."""
        hold = self._journal.hold
        for row in rows:
            hold(HeldRecord(row, *record[1:]))

    def spent(self, row: int, column: int, attempt: int, reason: str, usage: Usage) -> None:
        """An attempt failed after it used tokens."""
        self._journal.spent(SpentRecord(row, self._plans[column].name, attempt, reason, usage))
