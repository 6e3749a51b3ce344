"""What is on record about a run, kept as plainly as can be: a store of sets and dicts, what rows weigh, which are out.

Beside it the columns of a pipeline as the core sees them, with nothing in their bodies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from headgate.engine.values import ColumnPlan
from headgate.scheduler.tasks import CellState, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.engine.column import Column as DefinedColumn
    from headgate.storage import Batch, HeldRecord
    from tests.properties.reference_scheduler import Column

__all__ = ["STATES", "Books", "plans_of"]

STATES = {"done": CellState.DONE, "failed": CellState.FAILED, "skipped": CellState.SKIPPED}
LATELY = 16  # rows over which the weight of a finished one is averaged


def plans_of(columns: list[Column], verdict: Callable[[Task], str]) -> tuple[ColumnPlan, ...]:
    """``verdict`` is what a condition says of a cell."""

    def plan(number: int, column: Column) -> ColumnPlan:
        def when(row: int) -> bool:
            said = verdict(Task(number, row))
            if said == "breaks":
                raise ValueError(row)
            return said == "yes"

        spec = SimpleNamespace(weight=float(column.weight))
        defined = SimpleNamespace(spec=spec, when_fn=when if column.conditional else None)
        return ColumnPlan(
            index=number,
            name=f"c{number}",
            lane=column.lane,
            resource=None,
            group=column.group,
            arguments=(("row", -1), *((f"c{parent}", parent) for parent in column.parents)),
            when_arguments=(("row", -1),),
            optional=frozenset(),
            column=cast("DefinedColumn", defined),
        )

    return tuple(plan(number, column) for number, column in enumerate(columns))


@dataclass
class Books:
    """``weights`` is what each row weighs with its values, ``out`` the rows in the order in which they were finished
    and durable, ``taken`` those that somebody has.
    """

    columns: int
    weights: dict[int, int] = field(default_factory=dict[int, int])
    rows_in_store: set[int] = field(default_factory=set[int])
    cells_in_store: dict[tuple[int, int], CellState] = field(default_factory=dict[tuple[int, int], CellState])
    held_in_store: dict[tuple[int, int], HeldRecord] = field(default_factory=dict[tuple[int, int], "HeldRecord"])
    out: list[int] = field(default_factory=list[int])
    taken: list[int] = field(default_factory=list[int])

    def commit(self, batch: Batch) -> None:
        """Each thing is recorded once, and a row before its cells."""
        for record in batch.rows:
            assert record.row not in self.rows_in_store
            self.rows_in_store.add(record.row)
        for cell in batch.cells:
            key = (cell.row, int(cell.column[1:]))
            assert key not in self.cells_in_store
            assert cell.row in self.rows_in_store
            self.cells_in_store[key] = STATES[cell.status.value]
            self.held_in_store.pop(key, None)
        for held in batch.held:
            key = (held.row, int(held.column[1:]))
            assert key not in self.cells_in_store, "a cell that is over is not held"
            self.held_in_store[key] = held

    def durable(self, row: int) -> bool:
        cells = ((row, column) for column in range(self.columns))
        return row in self.rows_in_store and all(cell in self.cells_in_store for cell in cells)

    def row_bytes(self) -> float:
        """What rows that were finished of late weigh."""
        average = 0.0
        for row in self.out:
            average += (self.weights[row] - average) / (LATELY if average else 1)
        return average

    def expected_bytes(self) -> Fraction:
        """What all that is open will weigh, if those in progress are like those that were finished of late."""
        untaken = sum(self.weights[row] for row in self.out if row not in self.taken)
        in_progress = [row for row in self.weights if row not in self.out]
        now = Fraction(sum(self.weights[row] for row in in_progress))
        return untaken + max(now, len(in_progress) * Fraction(self.row_bytes()))

    def fit(self, most_bytes: int, open_rows: int, owed: int, group_rows: int) -> int:
        """How many more rows fit by their weight: counted up one by one, and whole groups beyond what is owed."""
        expected, heaviest = self.expected_bytes(), Fraction(self.row_bytes())
        if open_rows:
            heaviest = max(heaviest, expected / open_rows)
        fit = 0
        while fit < most_bytes and expected + (fit + 1) * heaviest <= most_bytes:
            fit += 1
        if not open_rows:
            fit = max(fit, group_rows)
        if fit > owed:
            fit = owed + (fit - owed) // group_rows * group_rows
        return fit
