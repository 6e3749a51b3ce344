"""Closing cells: the value or the failure of each, where everybody who keeps account of it looks.

That is the open row, the journal, the ledger of failures and the guard of the column. What it means for other cells is
the frontier's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..salvage.column_guard import ColumnGuard
from ..salvage.ledger import FailureLedger
from ..storage.ports import CellRecord, CellStatus
from ..values import Failed, Skipped
from .effects import ColumnHalted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..salvage.decisions import Fail
    from ..values import Usage
    from .effects import CoreEffect
    from .open_rows import OpenRows
    from .values import CellResult, ColumnPlan

__all__ = ["Outcomes"]

_DONE = CellStatus.DONE  # named once: it is written for every cell, and looking up an enum's member is slow


class Outcomes:
    """The outcomes of one run's cells, with wall-clock times. ``stopped`` says of columns that were stopped why; it is
    said in ``effects``."""

    __slots__ = ("_effects", "_guard", "_open", "_wall_clock", "ledger", "stopped")

    def __init__(self, open_rows: OpenRows, wall_clock: Callable[[], float], effects: list[CoreEffect]) -> None:
        self._open = open_rows
        self._wall_clock = wall_clock
        self._guard = ColumnGuard()
        self._effects = effects
        self.ledger = FailureLedger()
        self.stopped: dict[int, str] = {}

    def done(self, plan: ColumnPlan, result: CellResult, usage: Usage, attempts: int) -> None:
        """A cell has its value."""
        row, value, payload, _ = result
        record = CellRecord(row, plan.name, _DONE, payload, "", "", attempts, None, usage, self._wall_clock())
        self._open.done(record, payload, plan.index, value)
        self._guard.succeeded(plan.name)

    def failed(self, row: int, plan: ColumnPlan, fail: Fail, usage: Usage, traceback: str | None) -> None:
        """A cell failed for good. ``traceback`` is kept for bugs."""
        record = CellRecord(
            row,
            plan.name,
            CellStatus.FAILED,
            None,
            reason=fail.kind.value,
            message=fail.message,
            attempts=fail.attempts,
            http_status=fail.status,
            usage=usage,
            finished_at=self._wall_clock(),
        )
        open_row = self._open.lost(record, Failed(fail.kind.value, fail.message, fail.attempts, fail.status))
        self.ledger.record(
            open_row.record.row_id,
            plan.name,
            fail.kind,
            attempts=fail.attempts,
            status=fail.status,
            message=fail.message,
            traceback=traceback,
        )
        verdict = self._guard.failed(plan.name, fail.kind)
        if verdict is not None:
            why = f"{verdict.failures} of {verdict.rows} rows failed for good, the last one with: {fail.message}"
            self.stopped[plan.index] = why
            self._effects.append(ColumnHalted(plan.name, why))

    def skipped(self, row: int, plan: ColumnPlan, reason: str) -> None:
        """A cell is not needed."""
        record = CellRecord(row, plan.name, CellStatus.SKIPPED, None, reason=reason, finished_at=self._wall_clock())
        self._open.lost(record, Skipped(reason))
