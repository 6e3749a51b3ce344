"""What the store in memory keeps of a run, and what one batch changes about it.

A batch is looked at in parts, so that whoever commits tens of thousands of records may let others have their turns
meanwhile; nothing of it is to be seen until all of it was found right, and then all is, in one step. That step is
short, because what is stored lies by column: it merges a few dictionaries, about 0.1 us a record. (By column also
because a dictionary for each row takes 200 bytes, and garbage collection looks at every one.)

Pure: it neither waits nor knows who does.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from ..values import Usage
from . import rules
from .ports import NOT_RENEWED, RUNNING, CellStatus, Durability, RunInfo, SpentRecord, StoredRow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .ports import Batch, CellRecord, HeldRecord, RowRecord

__all__ = ["Change", "RunState"]

Attempt = tuple[int, str, int]  # epoch, column, number of the attempt
Aside: TypeAlias = "tuple[dict[int, CellRecord], dict[int, int]]"  # by row: the outcomes, the epochs of some


@dataclass(slots=True)
class RunState:
    """The state of one run; every handle of it works on the same one.

    ``cells`` and ``held`` are by column and then by row, ``version`` counts what commits and openings have changed.
    """

    name: str
    created_at: float
    epoch: int = 0
    status: str = RUNNING
    finished_at: float | None = None
    fingerprints: dict[str, str] = field(default_factory=dict[str, str])
    rows: dict[int, RowRecord] = field(default_factory=dict[int, "RowRecord"])
    positions: dict[str, int] = field(default_factory=dict[str, int])
    cells: dict[str, dict[int, CellRecord]] = field(default_factory=dict[str, "dict[int, CellRecord]"])
    held: dict[str, dict[int, HeldRecord]] = field(default_factory=dict[str, "dict[int, HeldRecord]"])
    spent: dict[int, dict[Attempt, SpentRecord]] = field(default_factory=dict[int, "dict[Attempt, SpentRecord]"])
    # Epochs of outcomes without a value, which can be reopened in later ones; outcomes put aside, with theirs.
    ended_in: dict[str, dict[int, int]] = field(default_factory=dict[str, "dict[int, int]"])
    aside: dict[tuple[str, str], Aside] = field(default_factory=dict[tuple[str, str], "Aside"])
    version: int = 0
    # Rows that are kept no more, and the tokens per column that they took; rows that go when no commit is under way.
    forgotten: int = 0
    forgotten_usage: dict[str, Usage] = field(default_factory=dict[str, Usage])
    leaving: list[int] = field(default_factory=list[int])
    commits: int = 0
    swept: bool = False

    def open(self, fingerprints: Mapping[str, str], renewed: Collection[str], now: float) -> None:
        """Begin the next epoch, at ``now`` (wall-clock seconds), and those of the ``renewed`` columns anew that have
        changed; of a run that was swept, begin everything anew.
        """
        if self.swept:
            self.swept, self.created_at = False, now
        for column, fingerprint in fingerprints.items():
            if column in renewed and self.fingerprints.get(column, fingerprint) != fingerprint:
                self._renew(column, fingerprint)
        self.fingerprints.update(fingerprints)
        for column in fingerprints:
            self.cells.setdefault(column, {})
            self.held.setdefault(column, {})
            self.ended_in.setdefault(column, {})
        self.epoch += 1
        self.version += 1
        self.status, self.finished_at = RUNNING, None

    def _renew(self, column: str, fingerprint: str) -> None:
        before = (column, self.fingerprints[column])
        # Columns that were kept may have had this fingerprint twice: the later outcomes come back, all tokens stay.
        for cell in self.aside.get(before, ({}, {}))[0].values():
            self.forgotten_usage[column] = self.forgotten_usage.get(column, Usage()) + cell.usage
        self.aside[before] = self.cells[column], self.ended_in[column]
        self.cells[column], self.ended_in[column] = self.aside.pop((column, fingerprint), ({}, {}))
        self.held[column] = {}

    def info(self) -> RunInfo:
        """A look at the run."""
        aside = defaultdict[str, list[str]](list)
        for column, fingerprint in self.aside:
            aside[column].append(fingerprint)
        return RunInfo(
            run=self.name,
            epoch=self.epoch,
            fingerprints=self.fingerprints,
            status=self.status,
            rows=len(self.rows) + self.forgotten,
            created_at=self.created_at,
            finished_at=self.finished_at,
            durability=Durability.NONE,
            aside=dict(aside),
        )

    def stored(self, row: int, renewed: Mapping[str, str] = NOT_RENEWED) -> StoredRow:
        """All about one row, with the columns in ``renewed`` as if they had been renewed with those fingerprints."""
        cells = self.cells if not renewed else {name: self._as_if(name, renewed) for name in self.cells}
        held = self.held
        if renewed:
            held = {name: {} if self._changes(name, renewed) else waiting for name, waiting in self.held.items()}
        return StoredRow(
            self.rows[row],
            tuple(column[row] for column in cells.values() if row in column),
            tuple(column[row] for column in held.values() if row in column),
        )

    def _as_if(self, column: str, renewed: Mapping[str, str]) -> dict[int, CellRecord]:
        """The outcomes that a column would have then."""
        if not self._changes(column, renewed):
            return self.cells[column]
        return self.aside.get((column, renewed[column]), ({}, {}))[0]

    def _changes(self, column: str, renewed: Mapping[str, str]) -> bool:
        return renewed.get(column, self.fingerprints[column]) != self.fingerprints[column]

    def usage(self) -> dict[str, Usage]:
        """The tokens on record per column, of all attempts together."""
        totals = dict(self.forgotten_usage)
        for row in self.rows:
            self._add_usage(totals, row)
        return totals

    def outcomes(self) -> int:
        """How many cells have an outcome, those that were put aside included."""
        return sum(map(len, self.cells.values())) + sum(len(cells) for cells, _ in self.aside.values())

    def check_whole(self) -> None:
        """Raise ResultExpired if rows were forgotten, or all of it."""
        self.check_kept()
        if self.forgotten or self.leaving:
            raise rules.expired(self.name, self.forgotten + len(self.leaving))

    def check_kept(self) -> None:
        """Raise ResultExpired if the run was swept and not opened again."""
        if self.swept:
            raise rules.swept(self.name)

    def ended_before(self, at: float, statuses: Collection[str]) -> bool:
        """Whether the run ended with one of ``statuses`` by then."""
        return not self.swept and self.status in statuses and self.finished_at is not None and self.finished_at <= at

    def drop(self) -> None:
        """Forget everything but the name and the epoch, which is over."""
        self.epoch += 1
        self.version += 1
        self.swept = True
        for records in (self.fingerprints, self.rows, self.positions, self.cells, self.held, self.spent):
            records.clear()
        self.ended_in.clear()
        self.aside.clear()
        self.forgotten_usage.clear()
        self.leaving.clear()
        self.forgotten = 0

    def forget(self, row: int) -> None:
        """Keep a row no more. Commits that are under way count on the rows that they have seen: it goes after them."""
        if self.commits:
            self.leaving.append(row)
            return
        self.forgotten += 1
        self._add_usage(self.forgotten_usage, row)
        del self.positions[self.rows.pop(row).row_id]
        self.spent.pop(row, None)
        for cells, held, ended_in in zip(self.cells.values(), self.held.values(), self.ended_in.values(), strict=True):
            cells.pop(row, None)
            held.pop(row, None)
            ended_in.pop(row, None)
        for cells, ended_in in self.aside.values():
            cells.pop(row, None)
            ended_in.pop(row, None)

    def begin_commit(self) -> None:
        """A commit is under way."""
        self.commits += 1

    def end_commit(self) -> None:
        """It is over, whatever came of it."""
        self.commits -= 1
        if self.leaving and not self.commits:
            leaving, self.leaving = self.leaving, []
            for row in leaving:
                self.forget(row)

    def _add_usage(self, totals: dict[str, Usage], row: int) -> None:
        aside = ((column, cells) for (column, _), (cells, _) in self.aside.items())
        for column, cells in chain(self.cells.items(), aside):
            if row in cells:
                totals[column] = totals.get(column, Usage()) + cells[row].usage
        for spent in self.spent.get(row, {}).values():
            totals[spent.column] = totals.get(spent.column, Usage()) + spent.usage


class Change:
    """What one batch adds to a run, found out part by part by ``check``, and done by ``apply`` in one step."""

    __slots__ = (
        *("_batch", "_limit", "_parts", "_run", "_version"),
        *("_cells", "_ended", "_held", "_positions", "_reopened", "_rows", "_spent"),
    )

    def __init__(self, run: RunState, batch: Batch, *, limit: int, most: int) -> None:
        self._run = run
        self._batch = batch
        self._limit = limit
        self._version = run.version
        self._parts = batch.parts(most)
        self._rows: dict[int, RowRecord] = {}
        self._positions: dict[str, int] = {}
        self._reopened: defaultdict[str, set[int]] = defaultdict(set)
        self._cells: defaultdict[str, dict[int, CellRecord]] = defaultdict(dict)
        self._ended: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._held: defaultdict[str, dict[int, HeldRecord]] = defaultdict(dict)
        self._spent: dict[int, dict[Attempt, SpentRecord]] = {}

    @property
    def outdated(self) -> bool:
        """Whether what was found does not count any more: somebody else has changed the run since."""
        return self._version != self._run.version

    def check(self) -> bool:
        """Look at the next part. False if that was the last one. Raises for whatever must be refused."""
        part = next(self._parts, None)
        if part is None:
            return False
        rules.check_sizes(self._run.name, part, self._limit)
        self._check_rows(part)
        self._reopen(part)
        self._check_cells(part)
        self._check_others(part)
        return True

    def apply(self) -> None:
        """Write what was found. Nothing in here may fail, and nothing goes record by record that need not."""
        run = self._run
        run.version += 1
        run.rows.update(self._rows)
        run.positions.update(self._positions)
        for column, rows in self._reopened.items():
            for row in rows:
                del run.cells[column][row], run.ended_in[column][row]
        for column, ended in self._ended.items():
            run.ended_in[column].update(ended)
        for column, cells in self._cells.items():
            run.cells[column].update(cells)
            held = run.held[column]
            for row in held.keys() & cells.keys():
                del held[row]
        for row, column in self._batch.unheld:
            run.held.get(column, {}).pop(row, None)
        for column, records in self._held.items():
            run.held[column].update(records)
        run.spent.update(self._spent)

    def _check_rows(self, part: Batch) -> None:
        """Take the rows that are not stored yet. Raises for one that contradicts a stored one."""
        fresh, ids = self._rows, self._positions
        stored, positions = self._run.rows, self._run.positions
        for record in part.rows:
            row, row_id = record.row, record.row_id
            if not (row in stored or row in fresh or row_id in positions or row_id in ids):
                fresh[row] = record
                ids[row_id] = row
                continue
            here = stored.get(row) or fresh.get(row)
            place = positions.get(row_id, ids.get(row_id))
            same_id = None if place is None else rules.Row(place, row_id, record.digest)
            at_place = None if here is None else rules.Row(here.row, here.row_id, here.digest)
            if refusal := rules.row_refusal(self._run.name, record, at_place, same_id):
                raise refusal
            assert here is not None, "an id that is known at this very place belongs to a row that is there"

    def _reopen(self, part: Batch) -> None:
        """Take off what an earlier epoch ended without a value; its tokens stay on record, as those of an attempt 0."""
        run = self._run
        for row, column in part.reopened:
            ended_in = run.ended_in.get(column, {}).get(row, run.epoch)
            if ended_in < run.epoch:
                self._reopened[column].add(row)
                cell = run.cells[column][row]
                self._spend(row, (ended_in, column, 0), SpentRecord(row, column, 0, cell.reason, cell.usage))

    def _check_cells(self, part: Batch) -> None:
        """Take the outcomes that are not stored yet. Raises for one that contradicts a stored one."""
        all_stored, all_fresh = self._run.cells, self._cells
        stored_rows, fresh_rows = self._run.rows, self._rows
        done = CellStatus.DONE
        for cell in part.cells:
            row, column = cell.row, cell.column
            if column not in all_stored or (row not in stored_rows and row not in fresh_rows):
                self._check_known(row, column)
            stored, fresh = all_stored[column], all_fresh[column]
            if row not in fresh and (row not in stored or row in self._reopened.get(column, ())):
                fresh[row] = cell
                if cell.status is not done:
                    self._ended[column][row] = self._run.epoch
                continue
            known = fresh.get(row) or stored[row]
            if refusal := rules.cell_refusal(self._run.name, cell, known.status, known.payload):
                raise refusal

    def _check_others(self, part: Batch) -> None:
        """Take the held cells that have no outcome, and the attempts that are not on record."""
        for held in part.held:
            row, column = held.row, held.column
            self._check_known(row, column)
            ended = row in self._run.cells[column] and row not in self._reopened.get(column, ())
            if not ended and row not in self._cells[column]:
                self._held[column][row] = held
        for spent in part.spent:
            row, key = spent.row, (self._run.epoch, spent.column, spent.attempt)
            self._check_known(row, spent.column)
            self._spend(row, key, spent)

    def _spend(self, row: int, key: Attempt, spent: SpentRecord) -> None:
        known = self._spent.get(row) or self._run.spent.get(row, {})
        if key not in known:
            self._spent[row] = {**known, key: spent}  # a new one: the old one is what is to be seen until then

    def _check_known(self, row: int, column: str) -> None:
        if column not in self._run.cells:
            raise rules.unknown_column(self._run.name, column)
        if row not in self._run.rows and row not in self._rows:
            raise rules.unknown_row(self._run.name, row)
