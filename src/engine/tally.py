"""Counting outcomes: cells by column once they are committed, rows once they are whole.

The numbers of the report come from here, and the report checks that they add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..storage.ports import CellStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..storage.ports import CellRecord
    from .values import OpenRow

__all__ = ["ColumnTally", "Tally"]


@dataclass(slots=True)
class ColumnTally:
    """The cells of one column by outcome."""

    done: int = 0
    failed: int = 0
    held: int = 0
    skipped: int = 0


class Tally:
    """Rows and cells of one run by outcome. Nothing is counted before it is durable."""

    __slots__ = ("accepted", "columns", "done", "failed", "held", "restored", "skipped")

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = {name: ColumnTally() for name in columns}
        self.accepted = self.done = self.failed = self.held = self.skipped = self.restored = 0

    def cells(self, records: Iterable[CellRecord]) -> None:
        """Cells reached their outcomes."""
        columns, done = self.columns, CellStatus.DONE
        for record in records:
            if record.status is done:
                columns[record.column].done += 1
            else:
                self.cell(record.column, record.status)

    def cell(self, column: str, status: CellStatus) -> None:
        """A cell reached its outcome."""
        tally = self.columns[column]
        if status is CellStatus.DONE:
            tally.done += 1
        elif status is CellStatus.FAILED:
            tally.failed += 1
        else:
            tally.skipped += 1

    def held_cell(self, column: str) -> None:
        """A cell is left for a later run."""
        self.columns[column].held += 1

    def rows(self, rows: Iterable[OpenRow]) -> None:
        """Rows are whole."""
        for row in rows:
            status = row.status()
            if status == "done":
                self.done += 1
            elif status == "failed":
                self.failed += 1
            else:
                self.skipped += 1

    def held_row(self) -> None:
        """A row is left for a later run."""
        self.held += 1

    @property
    def closed(self) -> int:
        """Rows that have their outcome."""
        return self.done + self.failed + self.held + self.skipped
