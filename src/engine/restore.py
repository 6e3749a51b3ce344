"""What an earlier run committed about a row, in the terms of this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from ..errors import FingerprintMismatch
from ..scheduler.frontier import OWN_CONDITION, CellState
from ..storage.codec import decode
from ..storage.ports import CellStatus, StoredRow
from ..values import Failed, Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..storage.ports import RowRecord
    from .values import ColumnPlan

__all__ = ["LONGEST_WAIT_S", "HeldCell", "Restored", "restore_row"]

_STATES = {
    CellStatus.DONE: CellState.DONE,
    CellStatus.FAILED: CellState.FAILED,
    CellStatus.SKIPPED: CellState.SKIPPED,
}

LONGEST_WAIT_S = 600.0
"""A not-before time in the store counts for at most this long: wall clocks jump, and patience begins anew."""


@dataclass(frozen=True, slots=True)
class HeldCell:
    """A cell that the earlier run held back: it waits ``wait_s`` more seconds."""

    wait_s: float
    history: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Restored:
    """Cells by column index: their status, their values where done, else what went wrong, and what was held.

    ``size`` is that of the values in bytes, as they are stored. ``reopened`` are columns whose outcome counts no more.
    """

    statuses: Mapping[int, CellStatus]
    values: Mapping[int, object]
    problems: Mapping[int, Failed | Skipped]
    held: Mapping[int, HeldCell]
    size: int
    whole: bool
    reopened: tuple[str, ...] = ()

    @property
    def states(self) -> dict[int, int]:
        """The terminal states as the frontier counts them."""
        return {column: _STATES[status] for column, status in self.statuses.items()}

    @property
    def failed(self) -> bool:
        """Whether a cell failed."""
        return CellStatus.FAILED in self.statuses.values()


def restore_row(
    record: RowRecord,
    stored: StoredRow,
    plans: Sequence[ColumnPlan],
    index: Mapping[str, int],
    wall_now: float,
    *,
    retry_failed: bool = False,
) -> Restored:
    """Match a stored row with ``record``, that of the row of the source at the same position.

    With ``retry_failed`` a row that failed is as if those of its cells had no outcome that failed, or were skipped for
    another reason than their own condition.

    Raises FingerprintMismatch when they differ, or when a done column had other columns before it.
    """
    if stored.record.digest != record.digest or stored.record.row_id != record.row_id:
        raise FingerprintMismatch(
            f"row {record.row} ({record.row_id!r}) is not the row that the store has at this place "
            f"({stored.record.row_id!r}): give the run another name, or the rows that it began with"
        )
    statuses: dict[int, CellStatus] = {}
    values: dict[int, object] = {}
    problems: dict[int, Failed | Skipped] = {}
    size = 0
    reopened: list[str] = []
    again = retry_failed and any(c.status is CellStatus.FAILED and c.column in index for c in stored.cells)
    for cell in stored.cells:
        column = index.get(cell.column)
        if column is None:
            continue  # the pipeline does not have this column any more
        if again and cell.status is not CellStatus.DONE and cell.reason != OWN_CONDITION:
            reopened.append(cell.column)
            continue
        statuses[column] = cell.status
        if cell.payload is not None:
            values[column] = plans[column].column.restore(cell.payload)
            size += len(cell.payload)
        elif cell.status is CellStatus.FAILED:
            problems[column] = Failed(cell.reason, cell.message, cell.attempts, cell.http_status)
        else:
            problems[column] = Skipped(cell.reason)
    _check_needs(record, statuses, plans)
    held = {
        index[record.column]: HeldCell(
            min(max(0.0, record.not_before - wall_now), LONGEST_WAIT_S),
            cast("Mapping[str, object]", decode(record.history)),
        )
        for record in stored.held
        if record.column in index
    }
    whole = len(statuses) == len(plans)
    return Restored(statuses, values, problems, held, size, whole, tuple(reopened))


def _check_needs(record: RowRecord, statuses: Mapping[int, CellStatus], plans: Sequence[ColumnPlan]) -> None:
    """A value was made of the columns that were there then; one that has come since had no part in it."""
    for column, status in statuses.items():
        plan = plans[column]
        for name, provider in plan.arguments + plan.when_arguments:
            if status is CellStatus.DONE and provider >= 0 and statuses.get(provider) is not CellStatus.DONE:
                raise FingerprintMismatch(
                    f"column {plan.name!r} was done for row {record.row} ({record.row_id!r}) without {name!r}, which "
                    "is a column now: take that column away, or give the run another name"
                )
