"""How a group task ends, or is held back, for thousands of rows: told to them in parts, durable in one piece.

What a group yields was decided for all its rows together, so a crash must not leave some of them with it and others
without: the journal gives nothing away until the last row is told. Meanwhile the task counts as still at work for the
rows that are not told yet; one that fails elsewhere is passed over then, as it would be while the body runs.

A task that is held back is so at once. Only what the store is to know of it is written in parts: half of that would let
the group come back at the time of an earlier hold.

Small groups, which are the rule, are told at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..salvage.decisions import Fail
from ..scheduler.tasks import FAILED
from ..values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..scheduler.frontier import Frontier
    from ..scheduler.tasks import Progress, Task
    from ..storage.ports import HeldRecord
    from .journal import Journal
    from .outcomes import Outcomes
    from .records import Records
    from .values import CellResult, ColumnPlan

__all__ = ["CELLS_PER_PART", "ROWS_AT_ONCE", "GroupEnd", "GroupEnds", "GroupHold"]

ROWS_AT_ONCE = 64
"""Rows of a group that is told at once, whatever follows."""

CELLS_PER_PART = 512
"""Cells of the rows that one part is told to: some 5 ms (T25). Of a hold it is one cell a row."""


@dataclass(slots=True, eq=False)
class GroupEnd:
    """The end of one group task: a result for each of its ``rows``, or one failure for them all.

    ``usage`` is what the request took, until a row has it on record. ``told`` counts rows.
    """

    task: Task
    plan: ColumnPlan
    rows: Sequence[int]
    outcome: Sequence[CellResult] | Fail
    usage: Usage
    attempts: int
    traceback: str | None = None
    told: int = 0


@dataclass(slots=True, eq=False)
class GroupHold:
    """One group task is held back: ``record`` for each of its ``rows``. ``told`` counts rows."""

    task: Task
    rows: Sequence[int]
    record: HeldRecord
    told: int = 0


class GroupEnds:
    """Ends and holds that are being told, first come first served. ``columns`` is how many cells a row has; ``follow``
    carries out what the frontier concludes.
    """

    __slots__ = ("_follow", "_frontier", "_journal", "_outcomes", "_records", "_rows_per_part", "_waiting")

    def __init__(
        self,
        frontier: Frontier,
        journal: Journal,
        outcomes: Outcomes,
        records: Records,
        follow: Callable[[Progress], None],
        *,
        columns: int,
    ) -> None:
        self._frontier = frontier
        self._journal = journal
        self._outcomes = outcomes
        self._records = records
        self._follow = follow
        self._rows_per_part = max(1, CELLS_PER_PART // columns)
        self._waiting: deque[GroupEnd | GroupHold] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, end: GroupEnd | GroupHold) -> None:
        """``end`` has come; it is told at once if it is small and no other is being told."""
        if not self._waiting and len(end.rows) <= ROWS_AT_ONCE:
            self._tell(end, len(end.rows))
        else:
            self._waiting.append(end)

    def go_on(self) -> None:
        """Tell one part more."""
        if not self._waiting:
            return
        end = self._waiting[0]
        if not end.told:
            self._journal.begin_unit()
        self._tell(end, self._rows_per_part if isinstance(end, GroupEnd) else CELLS_PER_PART)
        if end.told == len(end.rows):
            self._waiting.popleft()
            self._journal.end_unit()  # and the committer has its turn before the next one begins

    def _tell(self, end: GroupEnd | GroupHold, most: int) -> None:
        first, end.told = end.told, min(len(end.rows), end.told + most)
        part = end.rows[first : end.told]
        live = self._frontier.live_rows(end.task, part)
        if isinstance(end, GroupHold):
            self._records.hold(end.record, live)
        else:
            self._end(end, first, part, set(live))

    def _end(self, end: GroupEnd, first: int, part: Sequence[int], live: set[int]) -> None:
        states: dict[int, int] = {}
        reasons: dict[int, str] = {}
        for place, row in enumerate(part, first):
            if row not in live:
                continue  # it failed in another column while the group was at work
            fail = self._close(end, end.outcome if isinstance(end.outcome, Fail) else end.outcome[place], row)
            if fail is not None:
                states[row], reasons[row] = FAILED, fail.kind.value
            end.usage = Usage()  # one request, counted once
        self._follow(self._frontier.finish_group(end.task, states, reasons, among=part))

    def _close(self, end: GroupEnd, outcome: CellResult | Fail, row: int) -> Fail | None:
        """Close the cell of ``row``; its failure, if it is one."""
        if isinstance(outcome, Fail):
            self._outcomes.failed(row, end.plan, outcome, end.usage, end.traceback)
            return outcome
        failure = outcome.failure
        if failure is None:
            self._outcomes.done(end.plan, outcome, end.usage, end.attempts)
            return None
        fail = Fail(failure.kind, failure.message, end.attempts, failure.status, failure.kind)
        self._outcomes.failed(row, end.plan, fail, end.usage, failure.traceback)
        return fail
