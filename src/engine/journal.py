"""What is to be committed: durable before visible.

Collects the records of a run between commits. What is outstanding of a row the row itself counts, see
:mod:`headgate.engine.open_rows`; the committing is in :mod:`headgate.engine.committer`. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..storage.ports import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..storage.ports import CellRecord, HeldRecord, RowRecord, SpentRecord

__all__ = ["Journal"]


class Journal:
    """The records that wait for the next commit."""

    __slots__ = ("_cells", "_held", "_reopened", "_rows", "_spent", "_unit", "in_commit", "waiting")

    def __init__(self) -> None:
        self._rows: list[RowRecord] = []
        self._cells: list[CellRecord] = []
        # The last word counts: a cell held again before the commit replaces its earlier record.
        self._held: dict[tuple[int, str], HeldRecord] = {}
        self._spent: list[SpentRecord] = []
        self._reopened: list[tuple[int, str]] = []
        self.waiting = 0
        """How many records wait for the next commit. To be read only, as ``in_commit``."""
        self.in_commit = 0
        self._unit = False  # records are coming that have to be committed together

    @property
    def ready(self) -> bool:
        """Whether there is something to commit, and it is in one piece."""
        return self.waiting > 0 and not self._unit

    @property
    def backlog(self) -> int:
        """How many records are not committed yet."""
        return self.waiting + self.in_commit

    def row(self, record: RowRecord) -> None:
        """A row was accepted."""
        self._rows.append(record)
        self.waiting += 1

    def reopen(self, row: int, columns: Sequence[str]) -> None:
        """The outcomes of these cells count no more: they are tried again."""
        self._reopened.extend((row, column) for column in columns)
        self.waiting += len(columns)

    def cell(self, record: CellRecord) -> None:
        """A cell reached its outcome; it is held no more."""
        if self._held and self._held.pop((record.row, record.column), None) is not None:
            self.waiting -= 1
        self._cells.append(record)
        self.waiting += 1

    def hold(self, record: HeldRecord) -> None:
        """A cell was held back."""
        self.waiting += (record.row, record.column) not in self._held
        self._held[record.row, record.column] = record

    def spent(self, record: SpentRecord) -> None:
        """An attempt that failed used tokens."""
        self._spent.append(record)
        self.waiting += 1

    def begin_unit(self) -> None:
        """The records that come now belong together: nothing is ready until ``end_unit``."""
        assert not self._unit, "a unit is in the making"
        self._unit = True

    def end_unit(self) -> None:
        """The records that belong together are all here."""
        assert self._unit
        self._unit = False

    def take(self, learned: bytes | None = None) -> Batch:
        """All that waits, as one batch, with what was ``learned``. It stays outstanding until ``committed``."""
        assert not self._unit, "half of a unit would be committed"
        batch = Batch(
            rows=tuple(self._rows),
            cells=tuple(self._cells),
            held=tuple(self._held.values()),
            spent=tuple(self._spent),
            learned=learned,
            reopened=tuple(self._reopened),
        )
        assert batch.records == self.waiting
        self.in_commit += self.waiting
        self.waiting = 0
        self._rows, self._cells, self._spent, self._held, self._reopened = [], [], [], {}, []
        return batch

    def committed(self, batch: Batch) -> None:
        """``batch``, or a part of one, is durable."""
        self.in_commit -= batch.records
