"""What a store knows of one run, in numbers: outcomes by column, failures by cause, what is held, tokens.

Read row by row, so memory holds what is counted and a few examples, however long the run is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..values import Usage
from .ports import RUNNING, CellStatus
from .sharing import read_shared

if TYPE_CHECKING:
    from .ports import CellRecord, RunInfo, RunStore, StoredRow
    from .sharing import SharedState

__all__ = ["ColumnOverview", "FailedCell", "RunOverview", "read_overview"]

_EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class ColumnOverview:
    """The cells of one column; they add up to the stored rows. Those without an outcome are ``held`` if they are held
    back, or left for a later run since this one has ended, else ``open``. ``usage`` is of all attempts on record.
    """

    column: str
    done: int
    failed: int
    skipped: int
    held: int
    open: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class FailedCell:
    """One failed cell: which, and why."""

    row: int
    row_id: str
    column: str
    reason: str
    message: str
    attempts: int
    http_status: int | None


@dataclass(frozen=True, slots=True)
class RunOverview:
    """One run as its store has it. ``info.rows == whole + failed + held + pending`` unless it is being written to.

    A row is ``whole`` if every column of the run is done or skipped, ``failed`` if all have their outcome and one
    failed. Any other is ``held`` if a cell of it is held back, or if the run has ended, as its report counts them too;
    else ``pending``. ``failure_counts`` is by column and reason; ``failures`` are the first few.
    ``next_at`` is the earliest time at which a held cell may be tried, ``last_at`` that of the latest outcome, both in
    wall-clock seconds. ``shared`` is how its row groups stand, if engines share it.
    """

    info: RunInfo
    whole: int
    failed: int
    held: int
    pending: int
    columns: tuple[ColumnOverview, ...]
    failure_counts: dict[tuple[str, str], int]
    failures: tuple[FailedCell, ...]
    next_at: float | None
    last_at: float | None
    shared: SharedState | None = None

    @property
    def abandoned(self) -> bool:
        """Whether it is known that nobody works on it, although nobody has ended it."""
        return self.info.status == RUNNING and self.shared is not None and not self.shared.claimed

    @property
    def rows(self) -> int:
        """How many rows were looked at."""
        return self.whole + self.failed + self.held + self.pending


def read_overview(store: RunStore, run: str, *, examples: int = _EXAMPLES) -> RunOverview:
    """Read all of ``run``, which may go on meanwhile. Failures are the first ``examples``. It blocks: use a thread.

    Raises UnknownRun, ResultExpired, ResultCorrupt, StoreUnavailable.
    """
    info = store.read_info(run)
    count = _Count(tuple(info.fingerprints), examples, ended=info.status != RUNNING)
    for row in store.read_rows(run):
        count.add(row)
    spent = store.read_spent(run)
    return RunOverview(
        info=info,
        whole=count.rows["whole"],
        failed=count.rows["failed"],
        held=count.rows["held"],
        pending=count.rows["pending"],
        columns=tuple(count.column(name, spent.get(name, Usage())) for name in count.names),
        failure_counts=dict(sorted(count.reasons.items())),
        failures=tuple(count.examples),
        next_at=count.next_at,
        last_at=count.last_at,
        shared=read_shared(store, run),
    )


class _Count:
    """What the rows read so far come to."""

    def __init__(self, names: tuple[str, ...], most: int, *, ended: bool) -> None:
        self._most = most
        self._ended = ended
        self.names = names
        self.rows = Counter[str]()
        self.reasons = Counter[tuple[str, str]]()
        self.examples: list[FailedCell] = []
        self.next_at: float | None = None
        self.last_at: float | None = None
        self._cells = Counter[tuple[str, str]]()

    def add(self, row: StoredRow) -> None:
        failed = False
        for cell in row.cells:
            self._cells[cell.column, cell.status] += 1
            self.last_at = max(cell.finished_at, self.last_at or 0.0)
            if cell.status is CellStatus.FAILED:
                failed = True
                self._failed(row.record.row_id, cell)
        for held in row.held:
            self._cells[held.column, "held"] += 1
            self.next_at = min(held.not_before, self.next_at or held.not_before)
        if len(row.cells) >= len(self.names):
            self.rows["failed" if failed else "whole"] += 1
        else:
            self.rows["held" if row.held or self._ended else "pending"] += 1

    def column(self, name: str, usage: Usage) -> ColumnOverview:
        done, failed, skipped = (self._cells[name, status] for status in CellStatus)
        left = self.rows.total() - done - failed - skipped
        held = left if self._ended else self._cells[name, "held"]
        return ColumnOverview(name, done, failed, skipped, held, left - held, usage)

    def _failed(self, row_id: str, cell: CellRecord) -> None:
        self.reasons[cell.column, cell.reason] += 1
        if len(self.examples) < self._most:
            self.examples.append(
                FailedCell(cell.row, row_id, cell.column, cell.reason, cell.message, cell.attempts, cell.http_status)
            )
