"""The rows in memory: from their acceptance until everything about them is durable and they are handed out.

Durable before visible (D1): a row is counted and given out only when its last record is committed. Decides nothing
about tasks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from ..values import Failed
from .journal import Journal
from .tally import Tally
from .values import FinishedRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..storage.ports import Batch, CellRecord
    from ..values import Skipped
    from .restore import Restored
    from .values import ColumnPlan, OpenRow

__all__ = ["OpenRows"]

V = TypeVar("V")

_LATELY = 16
"""Rows over which the size of a finished row is averaged."""


class OpenRows:
    """Open rows by position, the records that wait for a commit, and the finished rows not yet taken.

    ``bytes`` counts both sorts of rows with the values of their done cells, as they are stored; ``row_bytes`` is what
    finished rows weighed of late.
    """

    __slots__ = ("_plans", "_untaken", "bytes", "finished", "journal", "row_bytes", "rows", "tally")

    def __init__(self, plans: Sequence[ColumnPlan]) -> None:
        self._plans = plans
        self.journal = Journal()
        self.tally = Tally(tuple(plan.name for plan in plans))
        self.rows: dict[int, OpenRow] = {}
        self.bytes = 0
        self.row_bytes = 0.0
        self.finished: deque[OpenRow] = deque()
        self._untaken = 0

    def __getitem__(self, index: int) -> OpenRow:
        return self.rows[index]

    def open(self, row: OpenRow, restored: Restored | None) -> None:
        """A row begins, with what an earlier run committed of it."""
        index = row.position
        self.rows[index] = row
        if restored is None:
            row.outstanding = 1
            self.journal.row(row.record)
        else:
            self._take_over(row, restored)
            if restored.reopened:
                row.outstanding = len(restored.reopened)
                self.journal.reopen(index, restored.reopened)
        self.bytes += row.bytes

    def done(self, record: CellRecord, payload: bytes, column: int, value: object) -> None:
        """A cell has its ``value``, which is stored as ``payload``."""
        row, size = self.rows[record.row], len(payload)
        row.values[column] = value
        row.bytes += size
        self.bytes += size
        row.outstanding += 1
        self.journal.cell(record)

    def lost(self, record: CellRecord, problem: Failed | Skipped) -> OpenRow:
        """A cell has failed for good, or is not needed. Returns its row."""
        row = self.rows[record.row]
        row.problems[record.column] = problem
        row.failed = row.failed or isinstance(problem, Failed)
        row.outstanding += 1
        self.journal.cell(record)
        return row

    def pass_through(self, row: OpenRow, restored: Restored) -> None:
        """A row that an earlier run finished: it is counted and handed out at once."""
        row.restored = True
        self._take_over(row, restored)
        self.bytes += row.bytes
        self.tally.restored += 1
        self._wait((row,))

    def finish(self, index: int) -> None:
        """Every cell of the row has its outcome."""
        row = self.rows[index]
        row.finished = True
        if not row.outstanding:
            self._hand_out((row,))

    def committed(self, batch: Batch) -> None:
        """``batch``, or a part of one, is durable."""
        self.journal.committed(batch)
        self.tally.cells(batch.cells)
        whole: list[OpenRow] = []
        rows = self.rows
        for records in (batch.rows, batch.cells):
            for record in records:
                row = rows[record.row]
                row.outstanding -= 1
                if row.finished and not row.outstanding:
                    whole.append(row)
        for index, _ in batch.reopened:
            row = rows[index]
            row.outstanding -= 1
            if row.finished and not row.outstanding:
                whole.append(row)
        self._hand_out(whole)

    def expected_bytes(self) -> float:
        """``bytes`` once those that are open now have all their values, if they are like others before them."""
        return self._untaken + max(self.bytes - self._untaken, len(self.rows) * self.row_bytes)

    def take(self) -> FinishedRow:
        """The finished row that has waited longest; it takes up no room any more."""
        row = self.finished.popleft()
        self.bytes -= row.bytes
        self._untaken -= row.bytes
        record, done = row.record, row.values
        values = {plan.name: done[plan.index] for plan in self._plans if plan.index in done}
        return FinishedRow(record.row, record.row_id, row.status(), row.fields, values, row.problems, row.restored)

    def let_go(self) -> None:
        """Nobody wants the finished rows."""
        self.bytes -= self._untaken
        self._untaken = 0
        self.finished.clear()

    def leave(self, index: int, columns: Iterable[int]) -> None:
        """The run ends and the row is not finished: the cells of ``columns`` are held for a later run."""
        assert not self.rows[index].finished, "a finished row was not committed before the run ended"
        for column in columns:
            self.tally.held_cell(self._plans[column].name)
        self.tally.held_row()

    def check(self) -> None:
        """Assert the invariants."""
        assert self.bytes == sum(row.bytes for row in self.rows.values()) + self._untaken
        assert self._untaken == sum(row.bytes for row in self.finished)
        assert self.tally.accepted == self.tally.closed + len(self.rows)
        assert all(row.outstanding or not row.finished for row in self.rows.values()), "a whole row was kept back"

    def _hand_out(self, rows: Sequence[OpenRow]) -> None:
        """Everything about ``rows`` is durable."""
        for row in rows:
            del self.rows[row.position]
            self.row_bytes += (row.bytes - self.row_bytes) / (_LATELY if self.row_bytes else 1)
        self._wait(rows)

    def _wait(self, rows: Sequence[OpenRow]) -> None:
        """Finished rows wait for somebody to take them; what nobody will take is not made up for it."""
        self.tally.rows(rows)
        for row in rows:
            self._untaken += row.bytes
        self.finished.extend(rows)

    def _take_over(self, row: OpenRow, restored: Restored) -> None:
        row.values.update(restored.values)
        row.problems.update(self._by_name(restored.problems))
        row.failed = restored.failed
        row.bytes += restored.size
        self._count(restored)

    def _by_name(self, cells: Mapping[int, V]) -> dict[str, V]:
        return {self._plans[column].name: value for column, value in cells.items()}

    def _count(self, restored: Restored) -> None:
        for column, status in restored.statuses.items():
            self.tally.cell(self._plans[column].name, status)
