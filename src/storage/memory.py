"""The store in memory: for tests, for trying things out, and the reference for every other store.

It keeps its promises (all or nothing, first outcome wins, fencing) except that it survives nothing. Its
commit never suspends, so it works under a virtual clock, and a test that uses it sees one state between any
two awaits.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..values import Usage
from . import rules
from .ports import RUNNING, Batch, Durability, RunInfo, StoredRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .ports import CellRecord, HeldRecord, RowRecord, SpentRecord

__all__ = ["MemoryRun", "MemoryStore"]


@dataclass(slots=True)
class _Run:
    """The state of one run; every handle of it works on the same one."""

    name: str
    created_at: float
    epoch: int = 0
    status: str = RUNNING
    finished_at: float | None = None
    fingerprints: dict[str, str] = field(default_factory=dict[str, str])
    rows: dict[int, RowRecord] = field(default_factory=dict[int, "RowRecord"])
    positions: dict[str, int] = field(default_factory=dict[str, int])
    cells: defaultdict[int, dict[str, CellRecord]] = field(
        default_factory=lambda: defaultdict[int, "dict[str, CellRecord]"](dict)
    )
    held: dict[int, dict[str, HeldRecord]] = field(default_factory=dict[int, "dict[str, HeldRecord]"])
    spent: dict[int, dict[tuple[int, str, int], SpentRecord]] = field(
        default_factory=dict[int, "dict[tuple[int, str, int], SpentRecord]"]
    )
    # Rows that are kept no more, and the tokens per column that they took.
    forgotten: int = 0
    forgotten_usage: dict[str, Usage] = field(default_factory=dict[str, Usage])

    def info(self) -> RunInfo:
        return RunInfo(
            run=self.name,
            epoch=self.epoch,
            fingerprints=self.fingerprints,
            status=self.status,
            rows=len(self.rows) + self.forgotten,
            created_at=self.created_at,
            finished_at=self.finished_at,
            durability=Durability.NONE,
        )

    def usage(self, row: int) -> Iterator[tuple[str, Usage]]:
        """What the attempts of one row took, by column."""
        if row in self.cells:
            for cell in self.cells[row].values():
                yield cell.column, cell.usage
        for spent in self.spent.get(row, {}).values():
            yield spent.column, spent.usage

    def forget(self, row: int) -> None:
        self.forgotten += 1
        _add(self.forgotten_usage, self.usage(row))
        del self.positions[self.rows.pop(row).row_id]
        for records in (self.cells, self.held, self.spent):
            records.pop(row, None)

    def check_whole(self) -> None:
        if self.forgotten:
            raise rules.expired(self.name, self.forgotten)

    def stored(self, row: int) -> StoredRow:
        order = {name: place for place, name in enumerate(self.fingerprints)}
        cells = sorted(self.cells.get(row, {}).values(), key=lambda cell: order[cell.column])
        held = sorted(self.held.get(row, {}).values(), key=lambda task: order[task.column])
        return StoredRow(self.rows[row], tuple(cells), tuple(held))


class MemoryStore:
    """A :class:`~headgate.storage.ports.RunStore` that keeps everything in this process: memory grows with the run.

    ``max_payload`` is in bytes, ``clock`` gives wall-clock seconds.
    """

    durability = Durability.NONE

    def __init__(self, *, max_payload: int = rules.MAX_PAYLOAD, clock: Callable[[], float] = time.time) -> None:
        self._runs: dict[str, _Run] = {}
        self._learned: dict[str, bytes] = {}  # by run, the latest at the end
        self._max_payload = max_payload
        self._clock = clock
        self._closed = False

    async def probe(self) -> None:
        """Need nothing."""
        self._check_open()

    async def open_run(self, run: str, fingerprints: Mapping[str, str]) -> MemoryRun:
        """See :meth:`headgate.storage.ports.RunStore.open_run`."""
        self._check_open()
        state = self._runs.get(run) or _Run(run, created_at=self._clock())
        state.check_whole()
        rules.check_fingerprints(run, state.fingerprints, fingerprints)
        self._runs[run] = state
        state.fingerprints.update(fingerprints)
        state.epoch += 1
        state.status, state.finished_at = RUNNING, None
        return MemoryRun(state, self._learned, self._max_payload, self._clock)

    def read_rows(self, run: str, *, batch: int = 500) -> Iterator[StoredRow]:
        """See :meth:`headgate.storage.ports.RunStore.read_rows`."""
        assert batch > 0, f"batch {batch}: at least one row at a time"
        state = self._state(run)
        state.check_whole()
        return (state.stored(row) for row in sorted(state.rows))

    def read_info(self, run: str) -> RunInfo:
        """See :meth:`headgate.storage.ports.RunStore.read_info`."""
        return self._state(run).info()

    def read_spent(self, run: str) -> dict[str, Usage]:
        """See :meth:`headgate.storage.ports.RunStore.read_spent`."""
        state = self._state(run)
        totals = dict(state.forgotten_usage)
        for row in state.rows:
            _add(totals, state.usage(row))
        return totals

    async def aclose(self) -> None:
        """Take no more work. What is stored can still be read from this object."""
        self._closed = True

    def _state(self, run: str) -> _Run:
        if run not in self._runs:
            raise rules.unknown_run(run)
        return self._runs[run]

    def _check_open(self) -> None:
        if self._closed:
            raise rules.closed("the store")


class MemoryRun:
    """A :class:`~headgate.storage.ports.RunHandle` on a run in memory."""

    def __init__(self, state: _Run, learned: dict[str, bytes], max_payload: int, clock: Callable[[], float]) -> None:
        self._state = state
        self._info = state.info()
        self._all_learned = learned
        self._learned = learned.get(state.name, next(reversed(learned.values()), None))
        self._max_payload = max_payload
        self._clock = clock
        self._closed = False

    @property
    def info(self) -> RunInfo:
        """The run as it was when this handle opened it."""
        return self._info

    @property
    def learned(self) -> bytes | None:
        """See :meth:`headgate.storage.ports.RunHandle.learned`."""
        return self._learned

    async def commit(self, batch: Batch) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.commit`. Never suspends."""
        self._check_open()
        self._check_epoch()
        rules.check_sizes(self._info.run, batch, self._max_payload)
        rows = self._new_rows(batch)
        cells = self._new_cells(batch, rows)
        self._check_cells_known(batch, rows)
        self._apply(batch, rows, cells)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        """See :meth:`headgate.storage.ports.RunHandle.load`."""
        self._check_open()
        state = self._state
        within = range(first, last)
        some = within if len(within) <= len(state.rows) else sorted(row for row in state.rows if row in within)
        return [state.stored(row) for row in some if row in state.rows]

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        """See :meth:`headgate.storage.ports.RunHandle.find`."""
        self._check_open()
        known = self._state.positions
        return {row_id: known[row_id] for row_id in row_ids if row_id in known}

    def forget(self, row: int) -> None:
        """Keep a row no more, with all about it: somebody else has it. No other store does this.

        From then on the run cannot be read or opened again: that is ResultExpired. Also a handle that was given up may
        forget, as long as nobody else has opened the run.
        """
        if self._state.epoch == self._info.epoch:
            self._state.forget(row)

    async def finish(self, status: str) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.finish`."""
        self._check_open()
        self._check_epoch()
        self._state.status, self._state.finished_at = status, self._clock()

    async def aclose(self) -> None:
        """Give the handle up."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise rules.closed(f"this handle of run {self._info.run!r}")

    def _check_epoch(self) -> None:
        if self._state.epoch != self._info.epoch:
            raise rules.fenced_out(self._info.run, self._info.epoch, self._state.epoch)

    def _new_rows(self, batch: Batch) -> dict[int, RowRecord]:
        """Return the rows that are not stored yet. Raises for one that contradicts a stored one."""
        fresh: dict[int, RowRecord] = {}
        ids: dict[str, int] = {}
        stored, positions = self._state.rows, self._state.positions
        for record in batch.rows:
            row, row_id = record.row, record.row_id
            if not (row in stored or row in fresh or row_id in positions or row_id in ids):
                fresh[row] = record
                ids[row_id] = row
                continue
            here = self._state.rows.get(record.row) or fresh.get(record.row)
            place = self._state.positions.get(record.row_id, ids.get(record.row_id))
            same_id = None if place is None else rules.Row(place, record.row_id, record.digest)
            at_place = None if here is None else rules.Row(here.row, here.row_id, here.digest)
            if refusal := rules.row_refusal(self._info.run, record, at_place, same_id):
                raise refusal
            if here is None:
                fresh[record.row] = record
                ids[record.row_id] = record.row
        return fresh

    def _new_cells(self, batch: Batch, rows: dict[int, RowRecord]) -> dict[tuple[int, str], CellRecord]:
        """Return the outcomes that are not stored yet. Raises for one that contradicts a stored one."""
        fresh: dict[tuple[int, str], CellRecord] = {}
        stored_rows, stored_cells, columns = self._state.rows, self._state.cells, self._info.fingerprints
        for cell in batch.cells:
            row, column = cell.row, cell.column
            if column not in columns or (row not in stored_rows and row not in rows):
                self._check_known(row, column, rows)
            key = (row, column)
            known = stored_cells[row].get(column) if row in stored_cells else None
            if known is None and key in fresh:
                known = fresh[key]
            if known is None:
                fresh[key] = cell
            elif refusal := rules.cell_refusal(self._info.run, cell, known.status, known.payload):
                raise refusal
        return fresh

    def _check_cells_known(self, batch: Batch, rows: dict[int, RowRecord]) -> None:
        for held in batch.held:
            self._check_known(held.row, held.column, rows)
        for spent in batch.spent:
            self._check_known(spent.row, spent.column, rows)

    def _check_known(self, row: int, column: str, rows: dict[int, RowRecord]) -> None:
        if column not in self._info.fingerprints:
            raise rules.unknown_column(self._info.run, column)
        if row not in self._state.rows and row not in rows:
            raise rules.unknown_row(self._info.run, row)

    def _apply(self, batch: Batch, rows: dict[int, RowRecord], cells: dict[tuple[int, str], CellRecord]) -> None:
        """Write what has been checked. Nothing in here may fail."""
        state = self._state
        for record in rows.values():
            state.rows[record.row] = record
            state.positions[record.row_id] = record.row
        for (row, column), cell in cells.items():
            state.cells[row][column] = cell
        if state.held:
            for row, column in (*cells, *batch.unheld):
                state.held.get(row, {}).pop(column, None)
        for held in batch.held:
            if held.column not in state.cells.get(held.row, {}):
                state.held.setdefault(held.row, {})[held.column] = held
        for spent in batch.spent:
            key = (self._info.epoch, spent.column, spent.attempt)
            state.spent.setdefault(spent.row, {}).setdefault(key, spent)
        if batch.learned is not None:
            self._all_learned.pop(state.name, None)
            self._all_learned[state.name] = batch.learned


def _add(totals: dict[str, Usage], spent: Iterable[tuple[str, Usage]]) -> None:
    for column, usage in spent:
        totals[column] = totals.get(column, Usage()) + usage
