"""What happens to thousands of rows at once is spread over many turns of the loop (T25).

Counted, not timed: how much the engine does between two turns of another task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import headgate
from headgate.engine import group_ends
from headgate.engine.core import HELD_PER_JOB, HELD_PER_STEP
from headgate.engine.dispatch import STARTS_PER_JOB, STARTS_PER_STEP
from headgate.engine.flight import CANCELS_PER_TURN
from headgate.engine.group_ends import CELLS_PER_PART
from headgate.engine.intake import CELLS_PER_JOB, CELLS_PER_PULL, ROWS_PER_JOB, ROWS_PER_PULL
from headgate.engine.jobs import Job
from headgate.engine.left_lanes import LEFT_PER_STEP
from headgate.engine.workers import DISMISSED_PER_TURN, JOBS_PER_TURN, Worker, Workers
from headgate.salvage import Classifier
from headgate.storage.memory import MemoryRun
from headgate.testing.clock import run_virtual
from tests.unit.watched_turns import Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headgate.storage import Batch

MODEL = "openai/gpt-x"


class Refused(Exception):
    """What a client raises for a status."""

    def __init__(self, status: int, *, code: str = "", retry_after: str = "") -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.body = {"error": {"code": code}}
        self.headers = {"retry-after": retry_after} if retry_after else {}


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


def salvo(answer: Exception | None) -> headgate.Pipeline:
    """All bodies get their answers at one second."""
    pipeline = headgate.Pipeline("salvo")

    @pipeline.column(model=MODEL)
    async def body(row: int) -> int:
        await anyio.sleep_until(1.0)
        if answer is not None:
            raise answer
        return row

    return pipeline


def test_t25_failures_that_come_at_once_are_understood_in_turns(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding out what an exception means costs ten times what waking its task does. All of it was done in one turn
    once, before the turnstile that spreads what follows.
    """
    judged = [0]
    classify = Classifier.classify

    def counted(self: Classifier, error: BaseException, *, wall_now: float = 0.0) -> object:
        judged[0] += 1
        return classify(self, error, wall_now=wall_now)

    monkeypatch.setattr(Classifier, "classify", counted)
    report = turns.run(salvo(Refused(400)), 600, lambda _: judged[0], concurrency=600, max_open_rows=600)
    assert report.failed == 600
    assert 0 < turns.most <= JOBS_PER_TURN


def test_t25_rows_behind_a_column_that_is_stopped(turns: Turns) -> None:
    """What may not start any more is failed in turns, as many as would start."""
    report = turns.run(
        salvo(Refused(400)), 3_000, lambda run: run.core.cells_closed, max_open_rows=3_000, min_open_rows=3_000
    )
    assert report.failed == 3_000
    assert 64 < turns.most <= STARTS_PER_STEP + JOBS_PER_TURN * (1 + STARTS_PER_JOB)


@pytest.mark.parametrize("patience", [10.0, 4.0])
def test_t25_held_tasks_that_are_due_at_once(turns: Turns, patience: float) -> None:
    """The end of a cooldown brings back thousands of tasks, that of patience gives them up: so many in a step."""
    rows = 1_500
    report = turns.run(
        salvo(Refused(429, retry_after="5")),
        rows,
        lambda run: run.core.salvage.held,
        concurrency=rows,
        max_open_rows=rows,
        patience=patience,
    )
    assert report.held == rows
    assert turns.most <= HELD_PER_STEP + JOBS_PER_TURN * (1 + HELD_PER_JOB)


def test_t25_a_resource_that_is_given_up(turns: Turns) -> None:
    """Thousands of ready tasks are left for a later run, so many in a step; none of them starts meanwhile."""
    report = turns.run(
        salvo(Refused(429, code="insufficient_quota")),
        3_000,
        lambda run: run.core.dispatcher.total,
        max_open_rows=3_000,
        min_open_rows=3_000,
    )
    assert report.held == report.accepted > 2_000
    assert report.resources[0].requests == 64
    assert LEFT_PER_STEP <= turns.most <= LEFT_PER_STEP + STARTS_PER_STEP + JOBS_PER_TURN * STARTS_PER_JOB


def test_t25_thousands_of_requests_are_cut_off(turns: Turns) -> None:
    """A run that is stopped without grace cancels them in turns."""
    rows = 1_200
    report = turns.run(
        salvo(None),
        rows,
        lambda run: run.in_flight,
        concurrency=rows,
        max_open_rows=rows,
        then=lambda run: run.stop(grace=0.0),
    )
    assert report.held == rows
    assert turns.most == CANCELS_PER_TURN


def test_t25_thousands_of_requests_time_out(turns: Turns) -> None:
    """They began together, so they time out together."""
    rows = 1_200
    pipeline = headgate.Pipeline("slow")

    @pipeline.column(model=MODEL, timeout=5.0)
    async def body(row: int) -> int:
        await anyio.sleep(1000)
        return row

    report = turns.run(
        pipeline, rows, lambda run: run.in_flight, concurrency=rows, max_open_rows=rows, deadline=6.0, grace=0.0
    )
    assert report.held == rows
    assert turns.most == CANCELS_PER_TURN


def test_t25_workers_go_home(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends has as many idle workers as were busy at once; they end in turns too."""
    gone, rows = [0], 1_200
    serve: Callable[[Workers[Job], Worker[Job]], Awaitable[None]] = Workers[Job]._work  # pyright: ignore[reportPrivateUsage]

    async def work(self: Workers[Job], worker: Worker[Job]) -> None:
        try:
            await serve(self, worker)
        finally:
            gone[0] += 1

    monkeypatch.setattr(Workers, "_work", work)
    report = turns.run(salvo(None), rows, lambda _: gone[0], concurrency=rows, max_open_rows=rows)
    assert report.done == rows
    assert gone[0] == rows
    assert turns.most == DISMISSED_PER_TURN


@pytest.mark.parametrize("columns", [1, 8, 64, 200])
def test_t25_wide_rows_come_in(turns: Turns, columns: int) -> None:
    """A row of 64 columns opens 64 cells. Counted in rows alone, 5,952 came in one turn at the start of a run, which
    took 45 ms; and a row with more cells than a turn may open comes in all the same.
    """
    pipeline, rows = headgate.Pipeline("wide"), 6_400 // columns

    async def body(row: int) -> int:
        return row

    for index in range(columns):
        pipeline.column(body, name=f"c{index}", model=f"openai/gpt-{index % 4}")
    report = turns.run(pipeline, rows, lambda run: run.core.tally.accepted)
    assert report.done == rows
    assert turns.most <= ROWS_PER_PULL + ROWS_PER_JOB * JOBS_PER_TURN
    assert turns.most * columns <= max(columns, CELLS_PER_PULL + CELLS_PER_JOB * JOBS_PER_TURN)


@pytest.mark.parametrize("fails", [False, True])
def test_t25_a_large_group_ends(turns: Turns, *, fails: bool) -> None:
    """20,000 cells became ready in one step elsewhere, for 741 ms. Here the end of a group is told in parts."""
    rows, columns = 2_000, 3
    pipeline = headgate.Pipeline("group")

    @pipeline.column(scope="group")
    async def together(row: list[int]) -> list[int]:
        if fails:
            raise Refused(400)
        return row

    async def after(together: int) -> int:
        return together

    for index in range(columns - 1):
        pipeline.column(after, name=f"c{index}", model=MODEL)

    def cells(run: headgate.Run) -> int:
        counts = run.core.frontier.counts()
        return counts.done + counts.failed + counts.skipped + counts.ready_tasks

    report = turns.run(pipeline, rows, cells, group_size=rows, max_open_rows=rows)
    assert (report.failed if fails else report.done) == rows
    assert CELLS_PER_PART - columns < turns.most <= CELLS_PER_PART + JOBS_PER_TURN


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """All that is committed."""
    seen: list[Batch] = []
    commit = MemoryRun.commit

    async def watched(handle: MemoryRun, batch: Batch) -> None:
        seen.append(batch)
        await commit(handle, batch)

    monkeypatch.setattr(MemoryRun, "commit", watched)
    return seen


@pytest.mark.parametrize("patience", [100.0, 4.0])
def test_t25_a_large_group_is_held_back(turns: Turns, batches: list[Batch], patience: float) -> None:
    """What the store is to know of each of its rows is written in turns, and committed in one piece (D6). So it is when
    the group is given up.
    """
    rows, calls = 2_000, [0]
    pipeline = headgate.Pipeline("held")

    @pipeline.column(scope="group")
    async def together(row: list[int]) -> list[int]:
        calls[0] += 1
        if calls[0] == 1 or patience < 5:
            raise Refused(429, retry_after="5")
        return row

    report = turns.run(
        pipeline, rows, lambda run: run.core.journal.backlog, group_size=rows, max_open_rows=rows, patience=patience
    )
    assert (report.held if patience < 5 else report.done) == rows
    assert CELLS_PER_PART <= turns.most <= CELLS_PER_PART + JOBS_PER_TURN
    assert {len(batch.held) for batch in batches} == {0, rows}


def test_a_large_group_is_durable_in_one_piece(batches: list[Batch]) -> None:
    """D2: what a group yields is committed for all of its rows or for none, though it is told to them in parts; and
    groups that follow each other do not keep everything from being committed.
    """
    rows, size = 1_200, 300
    pipeline = headgate.Pipeline("piece")

    @pipeline.column(scope="group")
    async def together(row: list[int]) -> list[int]:
        return row

    @pipeline.column
    async def after(together: int) -> int:
        return together

    async def main() -> headgate.RunReport:
        return await headgate.arun(pipeline, rows, group_size=size, max_open_rows=rows, min_open_rows=rows, seed=1)

    report = run_virtual(main)
    assert report.done == rows
    cells = [sum(cell.column == "together" for cell in batch.cells) for batch in batches]
    assert [count for count in cells if count] == [size] * (rows // size)


def test_a_row_that_fails_while_the_end_of_its_group_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over, as it would be while the body runs: what the group yielded for it does not count."""
    monkeypatch.setattr(group_ends, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(group_ends, "CELLS_PER_PART", 2)
    tell, told, rows = group_ends.GroupEnds._tell, anyio.Event(), 12  # pyright: ignore[reportPrivateUsage]
    pipeline = headgate.Pipeline("part")

    def heard(self: group_ends.GroupEnds, end: group_ends.GroupEnd, most: int) -> None:
        tell(self, end, most)
        told.set()

    @pipeline.column(scope="group")
    async def together(row: list[int]) -> list[int]:
        return row

    @pipeline.column(model=MODEL)
    async def other(row: int) -> int:
        await told.wait()
        if row == rows - 1:
            raise Refused(400)
        return row

    async def main() -> tuple[headgate.RunReport, dict[int, headgate.FinishedRow]]:
        async with headgate.Engine(limits={"*": headgate.Limits(concurrency=rows)}, seed=1) as engine:
            run = await engine.start(pipeline, rows, group_size=rows)
            found = {row.index: row async for row in run.rows()}
            return await run.wait(), found

    monkeypatch.setattr(group_ends.GroupEnds, "_tell", heard)
    report, found = run_virtual(main)
    assert (report.done, report.failed) == (rows - 1, 1)
    assert all(row.values == {"together": index, "other": index} for index, row in found.items() if index < rows - 1)
    assert found[rows - 1].values == {}
    assert found[rows - 1].problems.keys() == {"together", "other"}


def test_t25_the_end_of_a_run_with_much_open(turns: Turns) -> None:
    """What is left for a later run is counted in turns."""
    report = turns.run(
        salvo(None),
        3_000,
        lambda run: run.core.tally.held,
        max_open_rows=3_000,
        min_open_rows=3_000,
        then=lambda run: run.stop(grace=0.0),
    )
    assert report.held > 2_000
    assert turns.most == LEFT_PER_STEP
