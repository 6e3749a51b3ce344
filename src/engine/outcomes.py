"""Closing cells: the value or the failure of each, where everybody who keeps account of it looks.

That is the open row, the journal, the ledger of failures and the guard of the column. What it means for other cells is
the frontier's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..salvage.column_guard import ColumnGuard
from ..salvage.ledger import FailureLedger
from ..values import Failed
from .effects import ColumnHalted

if TYPE_CHECKING:
    from ..salvage.decisions import Fail
    from ..values import Usage
    from .effects import CoreEffect
    from .open_rows import OpenRows
    from .records import Records
    from .values import CellResult, ColumnPlan

__all__ = ["Outcomes"]


class Outcomes:
    """The outcomes of one run's cells. ``stopped`` says of columns that were stopped why; it is said in ``effects``."""

    __slots__ = ("_effects", "_guard", "_open", "_records", "ledger", "stopped")

    def __init__(self, open_rows: OpenRows, records: Records, effects: list[CoreEffect]) -> None:
        self._open = open_rows
        self._records = records
        self._guard = ColumnGuard()
        self._effects = effects
        self.ledger = FailureLedger()
        self.stopped: dict[int, str] = {}

    def done(self, plan: ColumnPlan, result: CellResult, usage: Usage, attempts: int) -> None:
        """A cell has its value."""
        self._open.keep(result.row, plan.index, result.value, len(result.payload))
        self._records.done(plan.index, result, usage, attempts)
        self._guard.succeeded(plan.name)

    def failed(self, row: int, plan: ColumnPlan, fail: Fail, usage: Usage, traceback: str | None) -> None:
        """A cell failed for good. ``traceback`` is kept for bugs."""
        open_row = self._open.rows[row]
        open_row.failed = True
        open_row.problems[plan.name] = Failed(fail.kind.value, fail.message, fail.attempts, fail.status)
        self._records.failed(row, plan.index, fail, usage)
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
