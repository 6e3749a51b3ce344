"""Any store behaves like a naive one made of dicts (D1, D3, D4, D6; T42, T44, T46, T51, T52).

The model below is the specification. ``StoreMachine`` drives a store and the model through the same calls,
with several handles and epochs, concurrent commits, repeated batches, reopened stores, and compares after
every step. A store is put to it by a subclass that says how to make one.
"""

from __future__ import annotations

import asyncio
import tempfile
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.errors import (
    ConflictingResult,
    FencedOut,
    FingerprintMismatch,
    PayloadTooLarge,
    StoreError,
    UnknownRun,
)
from headgate.storage import (
    RUNNING,
    Batch,
    CellRecord,
    CellStatus,
    Durability,
    FileStore,
    HeldRecord,
    MemoryStore,
    RowRecord,
    RunHandle,
    RunStore,
    SpentRecord,
    SqliteStore,
    StoredRow,
)
from headgate.values import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PAYLOAD = 40
RUNS = ("tickets", "täglich/2")

DETAILS = [("", "", 1, None), ("bug", "naïve", 0, 429), ("rejected", "a\0b", 3, None)]

positions = st.integers(0, 4)
# Mostly what a run would do, sometimes what it must not: the shares are in the repetitions.
columns = st.sampled_from(["a", "b", "c"] * 4 + ["unknown"])
which_opening = st.sampled_from([0] * 12 + [1, 2, 3])
usages = st.sampled_from([Usage(), Usage(3, 5)])
TOO_LARGE = b'"' + b"x" * MAX_PAYLOAD + b'"'
payloads = st.sampled_from([b"null"] * 12 + [b'""', b"[]", b'{"x":1}', TOO_LARGE])


@st.composite
def row_records(draw: st.DrawFn) -> RowRecord:
    row = draw(positions)
    # Mostly the row's own id and content, sometimes another row's.
    other = draw(st.sampled_from([row] * 12 + [0, 1]))
    data = draw(st.sampled_from([b"{}"] * 12 + [b'{"y":2}']))
    return RowRecord(row, f"id{other}", data * 2, data)


@st.composite
def cell_records(draw: st.DrawFn) -> CellRecord:
    status = draw(st.sampled_from([CellStatus.DONE] * 6 + [CellStatus.FAILED, CellStatus.SKIPPED]))
    payload = draw(payloads) if status is CellStatus.DONE else None
    reason, message, attempts, http_status = draw(st.sampled_from(DETAILS))
    return CellRecord(
        draw(positions), draw(columns), status, payload, reason, message, attempts, http_status, draw(usages), 1.5
    )


held_records = st.builds(
    HeldRecord,
    positions,
    columns,
    st.sampled_from(["rate_limited", "overloaded"]),
    st.sampled_from([1.5, 1e10]),
    st.integers(0, 2),
    st.sampled_from([b"[]", b'[["429",1.5]]']),
)
spent_records = st.builds(SpentRecord, positions, columns, st.integers(1, 3), st.just("provider_error"), usages)


def few(records: st.SearchStrategy[object], most: int = 2) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(records, max_size=most).map(tuple)


batches = st.builds(
    Batch,
    rows=few(row_records()),
    cells=few(cell_records()),
    unheld=few(st.tuples(positions, columns)),
    held=few(held_records),
    spent=few(spent_records),
    learned=st.sampled_from([None] * 8 + [b"{}", b'{"a":1}', b'{"b":2}', TOO_LARGE]),
)
# A run begins with most of its rows: without them little would ever get stored.
most_rows = Batch(rows=tuple(RowRecord(row, f"id{row}", b"{}{}", b"{}") for row in range(4)))


@dataclass
class ModelRun:
    """What a run is, as plainly as can be said."""

    epoch: int = 0
    status: str = RUNNING
    fingerprints: dict[str, str] = field(default_factory=dict[str, str])
    rows: dict[int, RowRecord] = field(default_factory=dict[int, RowRecord])
    cells: dict[tuple[int, str], CellRecord] = field(default_factory=dict[tuple[int, str], CellRecord])
    held: dict[tuple[int, str], HeldRecord] = field(default_factory=dict[tuple[int, str], HeldRecord])
    spent: dict[tuple[int, int, str, int], Usage] = field(default_factory=dict[tuple[int, int, str, int], Usage])

    def commit(self, batch: Batch, epoch: int) -> set[type[StoreError]]:
        """Apply the batch, or return why it must be refused: any of these, and nothing may have changed."""
        refusals = self._refusals(batch, epoch)
        if not refusals:
            self._apply(batch, epoch)
        return refusals

    def _refusals(self, batch: Batch, epoch: int) -> set[type[StoreError]]:
        found: set[type[StoreError]] = set()
        if any(cell.payload is not None and len(cell.payload) > MAX_PAYLOAD for cell in batch.cells):
            found.add(PayloadTooLarge)
        if batch.learned is not None and len(batch.learned) > MAX_PAYLOAD:
            found.add(PayloadTooLarge)
        if epoch != self.epoch:
            return {*found, FencedOut}
        rows = dict(self.rows)
        for record in batch.rows:
            known = rows.setdefault(record.row, record)
            ids = [row for row, other in rows.items() if other.row_id == record.row_id]
            if (known.digest, known.row_id) != (record.digest, record.row_id) or ids != [record.row]:
                found.add(FingerprintMismatch)
        cells = dict(self.cells)
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

    def _apply(self, batch: Batch, epoch: int) -> None:
        for record in batch.rows:
            self.rows.setdefault(record.row, record)
        for cell in batch.cells:
            self.cells.setdefault((cell.row, cell.column), cell)
            self.held.pop((cell.row, cell.column), None)
        for key in batch.unheld:
            self.held.pop(key, None)
        for held in batch.held:
            if (held.row, held.column) not in self.cells:
                self.held[held.row, held.column] = held
        for spent in batch.spent:
            self.spent.setdefault((epoch, spent.row, spent.column, spent.attempt), spent.usage)

    def stored(self, first: int = 0, last: int = 99) -> list[StoredRow]:
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
        total: dict[str, Usage] = {}
        for (_, name), cell in self.cells.items():
            total[name] = total.get(name, Usage()) + cell.usage
        for (_, _, name, _), used in self.spent.items():
            total[name] = total.get(name, Usage()) + used
        return total


@dataclass
class Opening:
    """A handle, and what the model knows about it."""

    handle: RunHandle
    store: int
    run: str
    epoch: int
    open: bool = True


class StoreMachine(RuleBasedStateMachine):
    """Drives stores of one kind beside the model. ``openers`` are how many look at the same place at once."""

    openers = 1
    survives_closing = True
    in_order_of_completion = False  # commits that go on at the same time count as they end, not as they began

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.model: dict[str, ModelRun] = {}
        self.openings: list[Opening] = []
        self.turn = 0
        self.learned: dict[str, bytes] = {}  # the run that learned last at the end
        self.stores = [self.make_store() for _ in range(self.openers)]

    @abstractmethod
    def make_store(self) -> RunStore:
        """Open the place where this machine's runs live."""

    def teardown(self) -> None:
        self._compare_all()
        for store in self.stores:
            self.loop.run(store.aclose())
        self.loop.close()

    def _opening(self, which: int) -> Opening:
        # The newest more often than the others.
        return self.openings[-1 - which % len(self.openings)]

    @initialize()
    def first_run(self) -> None:
        for run in RUNS:
            self.open_run(0, run, {"a": "1", "b": "1"})
            self.commit([most_rows], 0)
            self.open_run(1, run, {"c": "1"})

    @rule(
        store=st.integers(0, 1),
        run=st.sampled_from(RUNS),
        wanted=st.dictionaries(st.sampled_from("abcd"), st.sampled_from("1111112"), max_size=2),
    )
    def open_run(self, store: int, run: str, wanted: dict[str, str]) -> None:
        store %= len(self.stores)
        model = self.model.get(run, ModelRun())
        known = model.fingerprints
        if any(known.get(name, value) != value for name, value in wanted.items()):
            with pytest.raises(FingerprintMismatch):
                self.loop.run(self.stores[store].open_run(run, wanted))
            return
        handle = self.loop.run(self.stores[store].open_run(run, wanted))
        self.model[run] = model
        model.fingerprints.update(wanted)
        model.epoch += 1
        model.status = RUNNING
        assert handle.info.epoch == model.epoch
        assert handle.info.fingerprints == model.fingerprints
        assert handle.learned == self.learned.get(run, next(reversed(self.learned.values()), None))
        self.openings.append(Opening(handle, store, run, model.epoch))

    @rule(given=st.lists(batches, min_size=1, max_size=3), which=which_opening)
    def commit(self, given: list[Batch], which: int) -> None:
        """Commit batches at the same time: each has its own fate (T32)."""
        opening = self._opening(which)
        outcomes = self.loop.run(self._commit_all(opening.handle, given))
        for place in outcomes if self.in_order_of_completion else sorted(outcomes):
            batch, outcome = given[place], outcomes[place]
            refusals: set[type[StoreError]] = {StoreError, PayloadTooLarge}
            if opening.open:
                refusals = self.model[opening.run].commit(batch, opening.epoch)
            assert (type(outcome) in refusals) if refusals else (outcome is None), (outcome, refusals)
            if not refusals and batch.learned is not None:
                self.learned.pop(opening.run, None)
                self.learned[opening.run] = batch.learned

    @staticmethod
    async def _commit_all(handle: RunHandle, given: Sequence[Batch]) -> dict[int, StoreError | None]:
        outcomes: dict[int, StoreError | None] = {}

        async def one(place: int) -> None:
            try:
                await handle.commit(given[place])
                outcomes[place] = None
            except StoreError as error:
                outcomes[place] = error

        async with anyio.create_task_group() as tasks:
            for place in range(len(given)):
                tasks.start_soon(one, place)
        return outcomes

    @rule(batch=batches, which=which_opening)
    def commit_twice(self, batch: Batch, which: int) -> None:
        """A batch that is there changes nothing when it comes again (D3)."""
        self.commit([batch], which)
        before = {run: model.stored() for run, model in self.model.items()}
        self.commit([batch], which)
        assert before == {run: model.stored() for run, model in self.model.items()}

    @rule(which=which_opening, status=st.sampled_from(["completed", "held"]))
    def finish(self, which: int, status: str) -> None:
        opening = self._opening(which)
        model = self.model[opening.run]
        if not opening.open or opening.epoch != model.epoch:
            with pytest.raises(FencedOut if opening.open else StoreError):
                self.loop.run(opening.handle.finish(status))
            return
        self.loop.run(opening.handle.finish(status))
        model.status = status

    @rule(which=which_opening, first=positions, last=st.integers(0, 6), ids=st.lists(positions.map("id{}".format)))
    def look(self, which: int, first: int, last: int, ids: list[str]) -> None:
        opening = self._opening(which)
        if not opening.open:
            with pytest.raises(StoreError):
                self.loop.run(opening.handle.load(first, last))
            return
        model = self.model[opening.run]
        known = {record.row_id: row for row, record in model.rows.items()}
        assert self.loop.run(opening.handle.load(first, last)) == model.stored(first, last)
        assert self.loop.run(opening.handle.find(ids)) == {one: known[one] for one in ids if one in known}

    @rule(which=st.integers(1, 4))
    def close_handle(self, which: int) -> None:
        opening = self._opening(which)
        self.loop.run(opening.handle.aclose())
        opening.open = False

    @precondition(lambda self: self.survives_closing)
    @rule(store=st.integers(0, 1))
    def reopen_store(self, store: int) -> None:
        """What was acknowledged is there after closing, also for those who look at the same place (T42)."""
        store %= len(self.stores)
        self.loop.run(self.stores[store].aclose())
        self.stores[store] = self.make_store()
        for opening in self.openings:
            if opening.store == store:
                opening.open = False
        self.open_run(store, self.openings[-1].run, {})

    @invariant()
    def stores_agree_with_the_model(self) -> None:
        """Look through one of the stores, each in its turn, at the run that was touched last."""
        self.turn += 1
        store = self.stores[self.turn % len(self.stores)]
        self._compare(store, self.openings[-1].run)

    def _compare_all(self) -> None:
        for store in self.stores:
            for run in RUNS:
                self._compare(store, run)
            with pytest.raises(UnknownRun):
                store.read_rows("never opened")

    def _compare(self, store: RunStore, run: str) -> None:
        model = self.model[run]
        assert list(store.read_rows(run, batch=3)) == model.stored()
        info = store.read_info(run)
        assert (info.run, info.epoch, info.status, info.rows) == (run, model.epoch, model.status, len(model.rows))
        assert list(info.fingerprints.items()) == list(model.fingerprints.items())
        assert (info.finished_at is None) == (model.status == RUNNING)
        assert store.read_spent(run) == model.usage()


class MemoryMachine(StoreMachine):
    survives_closing = False

    def make_store(self) -> RunStore:
        return MemoryStore(max_payload=MAX_PAYLOAD)


class SqliteMachine(StoreMachine):
    """Two stores on one file, as two processes would have it."""

    openers = 2

    def __init__(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        super().__init__()

    def make_store(self) -> RunStore:
        path = Path(self.place.name, "store.db")
        return SqliteStore(path, durability=Durability.PROCESS, max_payload=MAX_PAYLOAD)

    def teardown(self) -> None:
        super().teardown()
        self.place.cleanup()


class FileMachine(StoreMachine):
    """Two stores on one directory, as two processes would have it."""

    openers = 2

    def __init__(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        super().__init__()

    def make_store(self) -> RunStore:
        return FileStore(Path(self.place.name, "store"), max_payload=MAX_PAYLOAD)

    def teardown(self) -> None:
        super().teardown()
        self.place.cleanup()


TestMemoryStore = MemoryMachine.TestCase
TestSqliteStore = SqliteMachine.TestCase
# Every example makes a file and opens it some hundred times.
TestFileStore = FileMachine.TestCase
TestSqliteStore.settings = TestFileStore.settings = settings(max_examples=max(20, settings().max_examples // 3))
