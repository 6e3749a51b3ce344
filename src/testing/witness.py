"""What really happened in a simulated run, seen from outside: which body ran when, what was committed.

Stands between the engine and three things that it is given (column functions, the store, the source), and states
the promises that can be seen there. Changes no decision: a commit takes longer if that was asked for, else the
engine runs as it would alone.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

import anyio

from ..engine.jobs import Job, body_results
from ..engine.requests import requester
from ..salvage.classify import Classifier, Failure
from ..salvage.kinds import TABLE, FailureKind
from ..storage.codec import encode
from ..storage.ports import CellStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ..engine.column import Column
    from ..engine.pipeline import Pipeline
    from ..engine.report import RunReport
    from ..engine.values import FinishedRow
    from ..storage.ports import Batch

__all__ = ["PromiseBroken", "Witness", "expect"]

ATTEMPTS_MAX = 5000
"""Starts of one cell in all lives together: far above what patience and backoff allow, far below never-ending."""

# Failures that come from the column's own code or from limits that cannot fit; no attempt is blamed for them.
_WITHOUT_ATTEMPT = frozenset(
    {FailureKind.BUG.value, FailureKind.ADMISSION_DENIED.value, FailureKind.COLUMN_STOPPED.value}
)

Cell = tuple[int, str]
Event = tuple[float, str, str, tuple[int, ...]]


class PromiseBroken(AssertionError):
    """The engine did what it promises not to do. ``promise`` is the code of the promise, such as ``"S2"``."""

    def __init__(self, promise: str, message: str) -> None:
        super().__init__(f"{promise}: {message}")
        self.promise = promise


def expect(holds: bool, promise: str, message: str) -> None:
    """Raise :class:`PromiseBroken` unless ``holds``."""
    if not holds:
        raise PromiseBroken(promise, message)


class Witness:
    """The record of all lives of one simulated run. ``look`` is called before and after each body."""

    def __init__(self, classifier: Classifier, wall_clock: Callable[[], float]) -> None:
        self.events: list[Event] = []
        self.committed: dict[Cell, tuple[CellStatus, bytes | None]] = {}
        self.rows: set[int] = set()
        self.starts: Counter[Cell] = Counter()
        self.handed_out: set[int] = set()
        self.broken: Exception | None = None
        self.look: Callable[[], None] = _nothing
        self._classifier = classifier
        self._wall_clock = wall_clock
        self._running: set[Cell] = set()
        self._values: dict[Cell, bytes] = {}
        self._blamed: set[Cell] = set()

    # Lives

    def begin_life(self) -> None:
        """A process opens the run."""
        self._running.clear()
        self.handed_out.clear()
        # What was answered and not committed is lost with the life in which it happened.
        self._values = {cell: data for cell, (_, data) in self.committed.items() if data is not None}
        self.note("life", "", ())

    def look_no_more(self) -> None:
        """The life is over."""
        self.look = _nothing

    def note(self, what: str, column: str, rows: Sequence[int]) -> None:
        """Put one event on record."""
        self.events.append((anyio.current_time(), what, column, tuple(rows)))

    # Bodies

    def watched(self, pipeline: Pipeline) -> Pipeline:
        """``pipeline`` with every body under watch."""
        return pipeline.rewritten(self._watched_body)

    def _watched_body(self, column: Column) -> Callable[..., object]:
        async def awaited(**arguments: object) -> object:
            return await self._attend_async(column, arguments)

        def called(**arguments: object) -> object:
            return self._attend(column, arguments)

        return awaited if column.is_async else called

    async def _attend_async(self, column: Column, arguments: Mapping[str, object]) -> object:
        job = self._start(column, arguments)
        try:
            returned = await cast("Awaitable[object]", column.fn(**arguments))
        except BaseException as error:
            self._raised(job, error)
            raise
        self._returned(job, returned)
        return returned

    def _attend(self, column: Column, arguments: Mapping[str, object]) -> object:
        job = self._start(column, arguments)
        try:
            returned = column.fn(**arguments)
        except BaseException as error:
            self._raised(job, error)
            raise
        self._returned(job, returned)
        return returned

    def _start(self, column: Column, arguments: Mapping[str, object]) -> Job:
        job = requester.get()
        assert isinstance(job, Job), "a column body runs as a job"
        try:
            for row in job.rows:
                self._check_start(column.name, row)
            self._check_arguments(job, arguments)
            self.look()
        except Exception as error:
            self._break(error)
            raise
        self.note("start", column.name, job.rows)
        self._running.update((row, column.name) for row in job.rows)
        return job

    def _check_start(self, column: str, row: int) -> None:
        cell = (row, column)
        expect(cell not in self.committed, "S2", f"{column} of row {row} runs again after its outcome was committed")
        expect(cell not in self._running, "S2", f"{column} of row {row} runs twice at the same time")
        self.starts[cell] += 1
        expect(self.starts[cell] < ATTEMPTS_MAX, "V3", f"{column} of row {row} was started {ATTEMPTS_MAX} times")

    def _check_arguments(self, job: Job, arguments: Mapping[str, object]) -> None:
        plan = job.plan
        names = {name: index for name, index in plan.arguments if index >= 0}
        for name in names:
            expect(name in arguments, "S3", f"{plan.name} of rows {list(job.rows)} started without {name!r}")
            given = cast("Sequence[object]", arguments[name]) if plan.group else (arguments[name],)
            expect(
                len(given) == len(job.rows), "S3", f"{plan.name} got {len(given)} of {name} for {len(job.rows)} rows"
            )
            for row, value in zip(job.rows, given, strict=True):
                made = self._values.get((row, name))
                expect(made is not None, "S3", f"{plan.name} of row {row} started before {name} was there")
                expect(made == encode(value), "S3", f"{plan.name} of row {row} got another {name} than was made")

    def _raised(self, job: Job, error: BaseException) -> None:
        cells = self._ended(job, "cancelled" if not isinstance(error, Exception) else type(error).__name__)
        if isinstance(error, Exception):
            kind = self._classify(error).kind
            if not TABLE[kind].pressure:
                self._blamed.update(cells)
        elif job.timed_out:
            self._blamed.update(cells)
        self._look_again()

    def _returned(self, job: Job, returned: object) -> None:
        cells = self._ended(job, "returned")
        results = body_results(job, returned, self._classify)
        if isinstance(results, Failure):
            self._blamed.update(cells)
            return
        for result in results:
            cell = (result.row, job.plan.name)
            if result.failure is not None:
                self._blamed.add(cell)
            else:
                self._values[cell] = result.payload
        self._look_again()

    def _ended(self, job: Job, how: str) -> list[Cell]:
        self.note(how, job.plan.name, job.rows)
        cells = [(row, job.plan.name) for row in job.rows]
        self._running.difference_update(cells)
        return cells

    def _look_again(self) -> None:
        if self.broken is not None:
            return
        try:
            self.look()
        except Exception as error:
            self._break(error)

    def _classify(self, error: BaseException) -> Failure:
        return self._classifier.classify(error, wall_now=self._wall_clock())

    def _break(self, error: Exception) -> None:
        """The engine takes what a body raises for the body's failure, so it is kept for the harness."""
        self.broken = self.broken or error

    # Commits

    def committed_batch(self, batch: Batch) -> None:
        """``batch`` is in the store."""
        for row in batch.rows:
            expect(row.row not in self.rows, "S1", f"row {row.row} was accepted twice")
            self.rows.add(row.row)
        for record in batch.cells:
            cell = (record.row, record.column)
            expect(cell not in self.committed, "S1", f"{record.column} of row {record.row} has two outcomes")
            if record.status is CellStatus.DONE:
                made = self._values.get(cell)
                expect(
                    made == record.payload, "S1", f"{record.column} of row {record.row} is not what its body returned"
                )
            elif record.status is CellStatus.FAILED:
                self._check_failure(cell, record.reason)
            self.committed[cell] = record.status, record.payload
        self.note("commit", "", [record.row for record in batch.cells])

    def _check_failure(self, cell: Cell, reason: str) -> None:
        row, column = cell
        if reason not in _WITHOUT_ATTEMPT:
            expect(cell in self._blamed, "V1", f"{column} of row {row} failed ({reason}) from nothing but pressure")

    # Rows and reports

    def whole_rows(self, columns: Sequence[str]) -> set[int]:
        """The rows of which every cell has its outcome in the store."""
        return {row for row in self.rows if all((row, column) in self.committed for column in columns)}

    def check_report(self, report: RunReport, columns: Sequence[str], whole_before: set[int]) -> None:
        """S1: the report of a life says what is in the store."""
        accepted = set(range(report.accepted))
        expect(accepted <= self.rows, "S1", f"{report.accepted} rows accepted, {len(self.rows)} in the store")
        for column, told in zip(columns, report.columns, strict=True):
            found = Counter(self.committed[row, column][0] for row in accepted if (row, column) in self.committed)
            stored = {status: found[status] for status in CellStatus}
            counts = {CellStatus.DONE: told.done, CellStatus.FAILED: told.failed, CellStatus.SKIPPED: told.skipped}
            expect(counts == stored, "S1", f"{column}: the report says {told}, the store has {stored}")
        whole = self.whole_rows(columns) & accepted
        closed = report.done + report.failed + report.skipped
        expect(closed == len(whole), "S1", f"{closed} rows have ended says the report, {len(whole)} says the store")
        failed = {row for row in whole if any(self.committed[row, c][0] is CellStatus.FAILED for c in columns)}
        expect(report.failed == len(failed), "S1", f"{report.failed} rows failed, and {len(failed)} in the store")
        restored = len(whole_before & accepted)
        expect(report.restored == restored, "S1", f"{report.restored} rows restored, {restored} were whole before")

    def check_handed_out(self, report: RunReport, columns: Sequence[str]) -> None:
        """S1: a consumer of ``run.rows()`` was given every row that has ended."""
        whole = self.whole_rows(columns) & set(range(report.accepted))
        expect(
            self.handed_out == whole, "S1", f"rows {sorted(whole ^ self.handed_out)[:9]} ended but were not handed out"
        )

    def received(self, row: FinishedRow, columns: Sequence[str]) -> None:
        """A consumer of ``run.rows()`` was given ``row``."""
        expect(row.index not in self.handed_out, "S1", f"row {row.index} was handed out twice")
        self.handed_out.add(row.index)
        statuses: set[CellStatus] = set()
        for column in columns:
            outcome = self.committed.get((row.index, column))
            if outcome is None:
                raise PromiseBroken("D1", f"row {row.index} was handed out before {column} was committed")
            status, payload = outcome
            statuses.add(status)
            expect(
                (status is CellStatus.DONE) == (column in row.values), "S1", f"row {row.index}: {column} is {status}"
            )
            if payload is not None:
                expect(encode(row.values[column]) == payload, "S1", f"row {row.index}: {column} is not what was stored")
        expect(row.ok == (CellStatus.FAILED not in statuses), "S1", f"row {row.index} is not {row.status}")


def _nothing() -> None:
    """Nobody looks."""
