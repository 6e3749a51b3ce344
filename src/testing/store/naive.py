"""What a store is, as plainly as can be said: the model that every store is compared with.

It is written for reading, not for use: one dict after the other, nothing shared with the stores.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...errors import ConflictingResult, FencedOut, FingerprintMismatch, PayloadTooLarge, StoreError
from ...storage.ports import RUNNING, CellStatus, StoredRow
from ...values import Usage
from .records import MAX_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ...storage.ports import Batch, CellRecord, HeldRecord, RowRecord

__all__ = ["NaiveRun", "NaiveStore"]


@dataclass
class NaiveRun:
    """One run."""

    epoch: int = 0
    status: str = RUNNING
    swept: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict[str, str])
    rows: dict[int, RowRecord] = field(default_factory=dict[int, "RowRecord"])
    cells: dict[tuple[int, str], CellRecord] = field(default_factory=dict[tuple[int, str], "CellRecord"])
    held: dict[tuple[int, str], HeldRecord] = field(default_factory=dict[tuple[int, str], "HeldRecord"])
    spent: dict[tuple[int, int, str, int], Usage] = field(default_factory=dict[tuple[int, int, str, int], Usage])
    ended_in: dict[tuple[int, str], int] = field(default_factory=dict[tuple[int, str], int])  # epochs
    aside: dict[tuple[str, str], dict[int, tuple[CellRecord, int]]] = field(
        default_factory=dict[tuple[str, str], "dict[int, tuple[CellRecord, int]]"]
    )  # by column and fingerprint

    def copy(self) -> NaiveRun:
        """Return an independent copy."""
        return replace(
            self,
            fingerprints=dict(self.fingerprints),
            rows=dict(self.rows),
            cells=dict(self.cells),
            held=dict(self.held),
            spent=dict(self.spent),
            ended_in=dict(self.ended_in),
            aside={key: dict(cells) for key, cells in self.aside.items()},
        )

    def refusals(self, batch: Batch, epoch: int) -> set[type[StoreError]]:
        """Why the batch must be refused, in any of these ways; then nothing may change. Empty if it must be taken."""
        found: set[type[StoreError]] = set()
        values = [cell.payload or b"" for cell in batch.cells] + [batch.learned or b""]
        if any(len(value) > MAX_PAYLOAD for value in values):
            found.add(PayloadTooLarge)
        if epoch != self.epoch or self.swept:
            return {*found, FencedOut}
        rows = dict(self.rows)
        for record in batch.rows:
            known = rows.setdefault(record.row, record)
            ids = [row for row, other in rows.items() if other.row_id == record.row_id]
            if (known.digest, known.row_id) != (record.digest, record.row_id) or ids != [record.row]:
                found.add(FingerprintMismatch)
        cells = dict(self.cells)
        for key in batch.reopened:
            if self._reopens(key):
                cells.pop(key, None)  # it may be named twice
        for cell in batch.cells:
            first = cells.setdefault((cell.row, cell.column), cell)
            if (first.status, first.payload) != (cell.status, cell.payload):
                found.add(ConflictingResult)
        named = {(cell.row, cell.column) for cell in batch.cells}
        named |= {(held.row, held.column) for held in batch.held}
        named |= {(spent.row, spent.column) for spent in batch.spent}
        if any(row not in rows or column not in self.fingerprints for row, column in named):
            found.add(StoreError)
        return found

    def apply(self, batch: Batch) -> None:
        """Commit a batch that must be taken."""
        for record in batch.rows:
            self.rows.setdefault(record.row, record)
        for key in batch.reopened:
            if self._reopens(key):
                ended = self.cells.pop(key)
                self.spent[self.ended_in.pop(key), *key, 0] = ended.usage
        for cell in batch.cells:
            if (cell.row, cell.column) not in self.cells:
                self.cells[cell.row, cell.column] = cell
                self.ended_in[cell.row, cell.column] = self.epoch
            self.held.pop((cell.row, cell.column), None)
        for key in batch.unheld:
            self.held.pop(key, None)
        for held in batch.held:
            if (held.row, held.column) not in self.cells:
                self.held[held.row, held.column] = held
        for spent in batch.spent:
            self.spent.setdefault((self.epoch, spent.row, spent.column, spent.attempt), spent.usage)

    def _reopens(self, key: tuple[int, str]) -> bool:
        cell = self.cells.get(key)
        return cell is not None and cell.status is not CellStatus.DONE and self.ended_in[key] < self.epoch

    def renew(self, column: str, fingerprint: str) -> None:
        """Put aside what the column has, and bring back what it had with this fingerprint."""
        key = (column, self.fingerprints[column])
        for row, (cell, epoch) in self.aside.get(key, {}).items():  # kept columns may have it twice: the later counts
            self.spent[epoch, row, column, 0] = cell.usage
        self.aside[key] = {
            row: (self.cells.pop((row, name)), self.ended_in.pop((row, name)))
            for row, name in list(self.cells)
            if name == column
        }
        for held in [held for held in self.held if held[1] == column]:
            del self.held[held]
        for row, (cell, epoch) in self.aside.pop((column, fingerprint), {}).items():
            self.cells[row, column], self.ended_in[row, column] = cell, epoch

    def as_if(self, renewed: Mapping[str, str]) -> NaiveRun:
        """Return a copy in which the columns that ``renewed`` changes were renewed with those fingerprints."""
        copy = self.copy()
        for column, fingerprint in renewed.items():
            if copy.fingerprints.get(column, fingerprint) != fingerprint:
                copy.renew(column, fingerprint)
        return copy

    def stored(self, first: int = 0, last: int = 99) -> list[StoredRow]:
        """What reading must return."""
        return [
            StoredRow(
                self.rows[row],
                tuple(self.cells[row, name] for name in self.fingerprints if (row, name) in self.cells),
                tuple(self.held[row, name] for name in self.fingerprints if (row, name) in self.held),
            )
            for row in sorted(self.rows)
            if first <= row < last
        ]

    def usage(self) -> dict[str, Usage]:
        """The tokens on record by column."""
        total: dict[str, Usage] = {}
        for (_, name), cell in self.cells.items():
            total[name] = total.get(name, Usage()) + cell.usage
        for (_, _, name, _), used in self.spent.items():
            total[name] = total.get(name, Usage()) + used
        for (name, _), cells in self.aside.items():
            for cell, _ in cells.values():
                total[name] = total.get(name, Usage()) + cell.usage
        return total


@dataclass
class NaiveStore:
    """All runs of one place."""

    runs: dict[str, NaiveRun] = field(default_factory=dict[str, NaiveRun])
    learned: dict[str, bytes] = field(default_factory=dict[str, bytes])  # by run, the latest at the end

    def copy(self) -> NaiveStore:
        """Return an independent copy."""
        return NaiveStore({name: run.copy() for name, run in self.runs.items()}, dict(self.learned))

    def changed(self, run: str, wanted: Mapping[str, str]) -> set[str]:
        """The columns that have changed: opening the run must be refused, unless something is said about each."""
        known = self.runs[run].fingerprints if run in self.runs else {}
        return {name for name, value in wanted.items() if known.get(name, value) != value}

    def open(self, run: str, wanted: Mapping[str, str], epoch: int, renewed: Collection[str] = ()) -> None:
        """Open the run. The store says with which epoch; it must be a higher one."""
        model = self.runs.setdefault(run, NaiveRun())
        assert epoch > model.epoch, f"epoch {epoch} after {model.epoch}"
        for column in sorted(self.changed(run, wanted) & set(renewed)):
            model.renew(column, wanted[column])
        model.fingerprints.update(wanted)
        model.epoch, model.status, model.swept = epoch, RUNNING, False

    def commit(self, run: str, batch: Batch, epoch: int) -> set[type[StoreError]]:
        """Apply the batch, or return why it must be refused: any of these."""
        refusals = self.runs[run].refusals(batch, epoch)
        if not refusals:
            self.runs[run].apply(batch)
            if batch.learned is not None:
                self.learned.pop(run, None)
                self.learned[run] = batch.learned
        return refusals

    def latest_learned(self, run: str) -> bytes | None:
        """What an opening of the run must be told."""
        return self.learned.get(run, next(reversed(self.learned.values()), None))

    def sweep(self, statuses: Collection[str], spare: Collection[str] = ()) -> set[str]:
        """Drop the runs that ended so, but those to spare; return their names."""
        ended = {run for run, model in self.runs.items() if not model.swept and model.status in statuses}
        dropped = ended.difference(spare)
        for run in dropped:
            self.runs[run] = NaiveRun(self.runs[run].epoch, swept=True)
        return dropped
