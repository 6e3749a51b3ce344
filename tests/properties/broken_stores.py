"""Stores that are wrong on purpose, each in one way that a real one once was: the suite has to find every one.

They are the store in memory, with what was stored kept by place, so that several of them can look at it and a crash
loses nothing. Without a fault it is a store like any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headgate.errors import FencedOut, PayloadTooLarge, StoreError
from headgate.storage import RUNNING, Batch, CellRecord, HeldRecord, MemoryStore, StoredRow
from headgate.testing.store import MAX_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from headgate.storage import Swept
    from headgate.storage.memory import MemoryRun

PLACES: dict[Path, MemoryStore] = {}
"""The store in memory of each place."""


class SharedStore:
    """The store in memory, at a place; what a faulty one does otherwise it overrides."""

    def __init__(self, place: Path) -> None:
        self.keep(PLACES.setdefault(place, MemoryStore(max_payload=MAX_PAYLOAD)))
        self.durability = self.kept.durability
        self.closed = False

    def keep(self, kept: MemoryStore) -> None:
        self.kept = kept
        self.runs: Any = vars(kept)["_runs"]  # the faults reach into them

    async def probe(self) -> None:
        self.check()

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> SharedRun:
        self.check()
        return self.handle(await self.kept.open_run(run, fingerprints, **how))

    def handle(self, inner: MemoryRun) -> SharedRun:
        return SharedRun(self, inner)

    def read_rows(self, run: str, *, batch: int = 500, **how: Mapping[str, str]) -> Iterator[StoredRow]:
        return self.kept.read_rows(run, batch=batch, **how)

    def read_runs(self) -> tuple[str, ...]:
        return self.kept.read_runs()

    def read_info(self, run: str) -> Any:
        return self.kept.read_info(run)

    def read_spent(self, run: str) -> Any:
        return self.kept.read_spent(run)

    def read_learned(self, run: str) -> Any:
        return self.kept.read_learned(run)

    def count_outcomes(self, run: str) -> int:
        return self.kept.count_outcomes(run)

    async def sweep(
        self,
        *,
        keep_s: float,
        statuses: Collection[str] = ("completed", "completed_with_failures"),
        spare: Collection[str] = (),
    ) -> Swept:
        self.check()
        return await self.kept.sweep(keep_s=keep_s, statuses=statuses, spare=spare)

    async def aclose(self) -> None:
        self.closed = True

    def check(self) -> None:
        if self.closed:
            raise StoreError("closed")


class SharedRun:
    def __init__(self, store: SharedStore, inner: MemoryRun) -> None:
        self.store = store
        self.inner = inner
        self.state: Any = vars(inner)["_state"]  # the faults reach into it
        self.info = inner.info
        self.learned = inner.learned

    async def commit(self, batch: Batch) -> None:
        self.store.check()
        await self.inner.commit(batch)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        self.store.check()
        return await self.inner.load(first, last)

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        self.store.check()
        return await self.inner.find(row_ids)

    async def finish(self, status: str) -> None:
        self.store.check()
        await self.inner.finish(status)

    async def aclose(self) -> None:
        await self.inner.aclose()


class LastOneWins(SharedStore):
    """A different outcome replaces the first one."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        class Run(SharedRun):
            async def commit(self, batch: Batch) -> None:
                for cell in batch.cells:
                    self.state.cells.get(cell.column, {}).pop(cell.row, None)
                await super().commit(batch)

        return Run(self, inner)


class NobodyIsFenced(SharedStore):
    """Any handle may write for ever."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        class Run(SharedRun):
            async def commit(self, batch: Batch) -> None:
                try:
                    await super().commit(batch)
                except FencedOut:
                    self.state.epoch, now = self.info.epoch, self.state.epoch
                    try:
                        await super().commit(batch)
                    finally:
                        self.state.epoch = now

        return Run(self, inner)


class FinishedByAnybody(SharedStore):
    """The end of a run is not fenced."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        class Run(SharedRun):
            async def finish(self, status: str) -> None:
                self.store.check()
                self.state.status, self.state.finished_at = status, 1.0

        return Run(self, inner)


class HalfABatch(SharedStore):
    """What comes before the part that is refused stays."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        class Run(SharedRun):
            async def commit(self, batch: Batch) -> None:
                await super().commit(Batch(rows=batch.rows))
                await super().commit(batch)

        return Run(self, inner)


class SaidBeforeDone(SharedStore):
    """Acknowledges and writes with the next commit: the last one is gone after a crash."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        class Run(SharedRun):
            waiting = Batch()

            async def commit(self, batch: Batch) -> None:
                await super().commit(self.waiting)
                self.waiting = batch

            async def load(self, first: int, last: int) -> list[StoredRow]:
                await super().commit(self.waiting)
                self.waiting = Batch()
                return await super().load(first, last)

        return Run(self, inner)


class EmptyIsNone(SharedStore):
    """An empty text comes back as None."""

    def read_rows(self, run: str, *, batch: int = 500, **how: Mapping[str, str]) -> Iterator[StoredRow]:
        def emptied(cell: CellRecord) -> CellRecord:
            return replace(cell, payload=b"null") if cell.payload == b'""' else cell

        rows = super().read_rows(run, batch=batch, **how)
        return (replace(row, cells=tuple(map(emptied, row.cells))) for row in rows)


class ReadOnce(SharedStore):
    """Whoever reads takes the cells away."""

    def read_rows(self, run: str, *, batch: int = 500, **how: Mapping[str, str]) -> Iterator[StoredRow]:
        rows = list(super().read_rows(run, batch=batch, **how))
        for cells in self.runs[run].cells.values():
            cells.clear()
        return iter(rows)


class RowsAsTheyCame(SharedStore):
    """In the order of writing."""

    def read_rows(self, run: str, *, batch: int = 500, **how: Mapping[str, str]) -> Iterator[StoredRow]:
        rows = {row.record.row: row for row in super().read_rows(run, batch=batch, **how)}
        return (rows[row] for row in self.runs[run].rows)


class TimesForgotten(SharedStore):
    """The not-before times do not outlive the opening."""

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> SharedRun:
        handle = await super().open_run(run, fingerprints, **how)
        held: dict[str, dict[int, HeldRecord]] = handle.state.held
        for by_row in held.values():
            for row, record in by_row.items():
                by_row[row] = record._replace(not_before=0.0)
        return handle


class HeldForEver(SharedStore):
    """A late hold reopens a cell that has ended."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        class Run(SharedRun):
            async def commit(self, batch: Batch) -> None:
                await super().commit(batch)
                for held in batch.held:
                    self.state.held[held.column][held.row] = held

        return Run(self, inner)


class CountedTwice(SharedStore):
    """A repeated batch counts its tokens again."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        class Run(SharedRun):
            turn = 0

            async def commit(self, batch: Batch) -> None:
                Run.turn += 10
                await super().commit(
                    replace(batch, spent=tuple(replace(one, attempt=one.attempt + Run.turn) for one in batch.spent))
                )

        return Run(self, inner)


class LargeIsCut(SharedStore):
    """A value that is too large is stored as far as it goes."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        class Run(SharedRun):
            async def commit(self, batch: Batch) -> None:
                try:
                    await super().commit(batch)
                except PayloadTooLarge:
                    cut = [replace(cell, payload=cell.payload and cell.payload[:MAX_PAYLOAD]) for cell in batch.cells]
                    await super().commit(replace(batch, cells=tuple(cut), learned=None, rows=()))

        return Run(self, inner)


class ChangedColumnsPass(SharedStore):
    """The columns of the opening replace those of the run."""

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> SharedRun:
        if run in self.runs:
            self.runs[run].fingerprints.update(fingerprints)
        return await super().open_run(run, fingerprints, **how)


class RefusalFences(SharedStore):
    """An opening that is refused has taken the epoch all the same."""

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> SharedRun:
        if run in self.runs and not self.runs[run].swept:
            self.runs[run].epoch += 1
        return await super().open_run(run, fingerprints, **how)


class SweptByAge(SharedStore):
    """Every run goes that is old enough, whatever its status."""

    async def sweep(self, *, keep_s: float, statuses: Collection[str] = (), spare: Collection[str] = ()) -> Swept:
        return await super().sweep(keep_s=keep_s, statuses={"completed", "held", "stopped", "stalled"}, spare=spare)


class SweptAtOnce(SharedStore):
    """The time to live is not looked at."""

    async def sweep(
        self, *, keep_s: float, statuses: Collection[str] = ("completed",), spare: Collection[str] = ()
    ) -> Swept:
        return await super().sweep(keep_s=0.0, statuses=statuses, spare=spare)


class SparesNobody(SharedStore):
    """Who relies on a run is not listened to."""

    async def sweep(
        self, *, keep_s: float, statuses: Collection[str] = ("completed",), spare: Collection[str] = ()
    ) -> Swept:
        return await super().sweep(keep_s=keep_s, statuses=statuses)


class EpochsBeginAgain(SharedStore):
    """A run that was swept is forgotten with its epoch: a handle of before may write to the new one."""

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> SharedRun:
        if run in self.runs and self.runs[run].swept:
            self.runs[run].epoch = 0
        return await super().open_run(run, fingerprints, **how)


class LearnedIsLost(SharedStore):
    """What was learned stays with the handle."""

    def handle(self, inner: MemoryRun) -> SharedRun:
        run = SharedRun(self, inner)
        run.learned = None
        return run


class EndsAgain(SharedStore):
    """Opening a run that had ended leaves it ended."""

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> SharedRun:
        state = self.runs.get(run)
        ended = state.finished_at if state is not None and state.status != RUNNING else None
        handle = await super().open_run(run, fingerprints, **how)
        handle.state.finished_at = ended
        return handle


class KeptByOne(SharedStore):
    """Results stay in the memory of the store that was asked to keep them."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.keep(MemoryStore(max_payload=MAX_PAYLOAD))


class SweptAreListed(SharedStore):
    """What can be read no more is named all the same."""

    def read_runs(self) -> tuple[str, ...]:
        return tuple(sorted(self.runs))


class ReadAsItIs(SharedStore):
    """What a renewed column would find is what it has now."""

    def read_rows(self, run: str, *, batch: int = 500, **how: Mapping[str, str]) -> Iterator[StoredRow]:
        return super().read_rows(run, batch=batch)


BROKEN: dict[Callable[[Any], SharedStore], str] = {
    LastOneWins: "test_the_first_outcome_wins",
    NobodyIsFenced: "test_an_old_epoch_cannot_write",
    FinishedByAnybody: "test_an_old_epoch_cannot_write",
    HalfABatch: "test_the_first_outcome_wins",
    SaidBeforeDone: "test_what_was_acknowledged_is_there_for_everybody",
    EmptyIsNone: "test_none_empty_and_failure_are_three_things",
    ReadOnce: "test_reading_changes_nothing",
    RowsAsTheyCame: "test_rows_come_in_order_whatever_the_batch",
    TimesForgotten: "test_held_cells_and_their_times_live_until_the_outcome",
    HeldForEver: "test_held_cells_and_their_times_live_until_the_outcome",
    CountedTwice: "test_tokens_of_every_attempt_are_on_record_once",
    LargeIsCut: "test_large_values_come_back_and_too_large_ones_are_refused",
    ChangedColumnsPass: "test_an_opening_that_is_refused_fences_nobody",
    RefusalFences: "test_an_opening_that_is_refused_fences_nobody",
    SweptByAge: "test_t48_what_is_not_over_stays",
    SweptAtOnce: "test_what_ended_long_enough_ago_goes",
    SparesNobody: "test_a_run_on_which_somebody_relies_is_spared",
    EpochsBeginAgain: "test_a_run_that_was_swept_begins_anew_and_its_old_handles_are_fenced_out",
    LearnedIsLost: "test_what_was_learned_counts_for_the_run_first_and_for_others_after",
    EndsAgain: "test_the_end_of_a_run_is_on_record_until_it_is_opened_again",
    SweptAreListed: "test_runs_are_listed_until_they_are_swept",
    ReadAsItIs: "test_a_run_can_be_read_as_if_columns_were_renewed",
    KeptByOne: "test_what_was_acknowledged_is_there_for_everybody",
}
"""Each broken store with the plain test that is there for it."""
