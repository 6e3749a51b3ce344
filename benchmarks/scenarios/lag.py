"""How long the engine keeps the loop: its longest turn while very much happens in one moment.

Each case makes one thing happen to thousands of rows at once. Where that is the answers to requests in flight, asyncio
itself wakes a task for each of them in one turn, which is no engine's to spread: such a case is held against the
longest turn of as many bare tasks that wake up in one moment, measured beside it.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

import headgate

from ..measure import Case, Plan, Sample, Scenario, at_most
from ..turns import run_watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    Body = Callable[[], Awaitable[object]]

__all__ = ["SCENARIO"]

TURN_MS = 20.0
OVER_BARE = 1.25  # where asyncio wakes everybody at once: room for what a body's end costs before it waits its turn
MODEL = "bench/m"
IN_FLIGHT = 64
FAN_OUT = 64
BEHIND = 5  # columns that wait for the one whose end makes them all ready


class Answer(Exception):
    """What a client raises for a status, as the classifier reads it."""

    def __init__(self, status: int, *, retry_after: str | None = None, code: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.body = {"error": {"code": code}} if code else None
        self.headers = {"retry-after": retry_after} if retry_after else {}


def cases(plan: Plan) -> Iterator[Case]:
    """What may come all at once: readiness, failures, refusals, held tasks, a parked resource, the ends of a run."""
    many = plan.effort.pick(200, 5_000, 100_000)
    some = plan.effort.pick(100, 1_000, 10_000)
    few = plan.effort.pick(100, 200, 1_000)
    found: list[tuple[str, Body]] = [
        (f"{many} rows open, all ready", partial(_ready, many)),
        (f"{many} cells ready when a group ends", partial(_after_group, many // BEHIND)),
        (f"a group of {some} rows", partial(_group, some)),
        (f"a group of {some} rows fails", partial(_group_fails, some)),
        (f"a group of {some} rows is held back", partial(_group_held, some)),
        (f"{some} rows wait for a column that is stopped", partial(_stopped_column, some)),
        (f"{some} tasks on a resource that is parked", partial(_parked, some)),
        (f"{some} tasks out of patience at once", partial(_impatient, some)),
        (f"{FAN_OUT} columns behind each of {few} cells", partial(_fan_out, few)),
        (f"a run over {many} rows is stopped", partial(_stopped, many, 0)),
        (f"the first {few} rows of a run", partial(_ready, few)),
    ]
    for name, body in found:
        yield Case(name, partial(_memory, body), runs=1)
    yield Case(f"resume of {many} cells from SQLite", partial(_resume, many // BEHIND), runs=1)
    woken: list[tuple[str, Body]] = [
        (f"{some} answers at once", partial(_at_once, some, None)),
        (f"{some} in flight fail at once", partial(_at_once, some, 400)),
        (f"{some} refused at once, and due at once", partial(_due, some)),
        (f"{some} tasks are cut off", partial(_stopped, some, some)),
    ]
    for name, body in woken:
        yield Case(name, partial(_memory, body, woken=some), runs=1)


def _memory(body: Body, woken: int = 0) -> Iterable[Sample]:
    """``woken`` tasks are woken by asyncio itself in one turn."""
    _, turns = run_watched(body)
    longest_ms = turns.longest_s * 1e3
    yield Sample("longest turn", "ms", longest_ms, None if woken else at_most(TURN_MS), noisy=True)
    yield Sample("most garbage collection in a turn", "ms", turns.collected_s * 1e3, noisy=True)
    yield Sample("latest beat of a timer", "ms", turns.late_s * 1e3, noisy=True)
    if woken:
        bare_ms = _bare_s(woken) * 1e3
        yield Sample("asyncio alone", "ms", bare_ms, noisy=True)
        yield Sample("over asyncio alone", "x", longest_ms / bare_ms, at_most(OVER_BARE), noisy=True)


async def _ready(rows: int) -> None:
    report = await _run(_one_column(), rows, max_open_rows=rows, min_open_rows=rows)
    assert report.done == rows, report


async def _after_group(rows: int) -> None:
    pipeline = headgate.Pipeline("behind")

    @pipeline.column(scope="group")
    async def first(row: list[int]) -> list[int]:
        return row

    async def behind(first: int) -> int:
        return first

    for index in range(BEHIND):
        pipeline.column(behind, name=f"c{index}", model=MODEL)
    report = await _run(pipeline, rows, group_size=rows, max_open_rows=rows)
    assert report.done == rows, report


async def _group(rows: int) -> None:
    pipeline = headgate.Pipeline("group")

    @pipeline.column(model=MODEL)
    async def before(row: int) -> int:
        return row

    @pipeline.column(scope="group")
    async def together(before: list[int]) -> list[int]:
        return before

    report = await _run(pipeline, rows, group_size=rows, max_open_rows=rows)
    assert report.done == rows, report


async def _group_fails(rows: int) -> None:
    pipeline = headgate.Pipeline("group")

    @pipeline.column(scope="group")
    async def together(row: list[int]) -> list[int]:
        raise Answer(400)

    @pipeline.column
    async def after(together: int) -> int:
        return together

    report = await _run(pipeline, rows, group_size=rows, max_open_rows=rows)
    assert report.failed == rows, report


async def _group_held(rows: int) -> None:
    pipeline, calls = headgate.Pipeline("group"), [0]

    @pipeline.column(scope="group")
    async def together(row: list[int]) -> list[int]:
        calls[0] += 1
        if calls[0] == 1:
            raise Answer(429, retry_after="0.5")
        return row

    report = await _run(pipeline, rows, group_size=rows, max_open_rows=rows)
    assert report.done == rows, report


async def _at_once(rows: int, status: int | None) -> None:
    """All are in flight, and get their answers in one turn."""
    pipeline, answers, waiting = headgate.Pipeline("salvo"), anyio.Event(), [0]

    @pipeline.column(model=MODEL)
    async def body(row: int) -> int:
        waiting[0] += 1
        await answers.wait()
        if status is not None:
            raise Answer(status)
        return row

    async with _engine(rows) as engine:
        run = await engine.start(pipeline, rows, max_open_rows=rows, max_workers=rows)
        await _until(lambda: waiting[0] >= rows)
        answers.set()
        report = await run.wait()
    assert report.done + report.failed == rows, report


async def _stopped_column(rows: int) -> None:
    """The first to end fail, and take the column with them; the others are all ready by then."""
    await _all_ready(rows, Answer(400))


async def _all_ready(rows: int, answer: Answer) -> headgate.RunReport:
    """Nearly all rows are ready behind a few that wait, and then get ``answer``."""
    pipeline, answers = headgate.Pipeline("ready"), anyio.Event()

    @pipeline.column(model=MODEL)
    async def body(row: int) -> int:
        await answers.wait()
        raise answer

    async with _engine() as engine:
        run = await engine.start(pipeline, rows, max_open_rows=rows, min_open_rows=rows)
        await _until(lambda: len(run.core.rows) >= 0.9 * rows)
        answers.set()
        return await run.wait()


async def _due(rows: int) -> None:
    """All are refused in one moment, and told to come back at another."""
    pipeline, refusals, waiting = headgate.Pipeline("due"), anyio.Event(), [0]
    back_s = max(0.5, rows / 5_000)  # later than the last refusal is understood

    @pipeline.column(model=MODEL)
    async def body(row: int) -> int:
        waiting[0] += 1
        if not refusals.is_set():
            await refusals.wait()
            raise Answer(429, retry_after=str(back_s))
        return row

    async with _engine(rows) as engine:
        run = await engine.start(pipeline, rows, max_open_rows=rows, max_workers=rows)
        await _until(lambda: waiting[0] >= rows)
        refusals.set()
        await anyio.sleep(2 * back_s)  # the way back is paced: one look at it is enough
        run.stop(grace=0.0)
        await run.wait()


async def _parked(rows: int) -> None:
    report = await _all_ready(rows, Answer(429, code="insufficient_quota"))
    assert report.held, report


async def _impatient(rows: int) -> None:
    pipeline = headgate.Pipeline("impatient")

    @pipeline.column(model=MODEL)
    async def body(row: int) -> int:
        raise Answer(500)

    async with _engine(rows) as engine:
        run = await engine.start(pipeline, rows, max_open_rows=rows, max_workers=rows, patience=1.0)
        report = await run.wait()
    assert report.held, report


async def _fan_out(rows: int) -> None:
    pipeline = headgate.Pipeline("fan")

    @pipeline.column(model=MODEL)
    async def root(row: int) -> int:
        return row

    async def leaf(root: int) -> int:
        return root

    for index in range(FAN_OUT):
        pipeline.column(leaf, name=f"c{index}", model=MODEL)
    report = await _run(pipeline, rows, max_open_rows=rows)
    assert report.done == rows, report


async def _stopped(rows: int, in_flight: int) -> None:
    pipeline, begun = headgate.Pipeline("stopped"), [0]

    @pipeline.column(model=MODEL)
    async def body(row: int) -> int:
        begun[0] += 1
        await anyio.sleep(1000)
        return row

    async with _engine(in_flight or IN_FLIGHT) as engine:
        run = await engine.start(
            pipeline, rows, max_open_rows=rows, min_open_rows=rows, max_workers=in_flight or IN_FLIGHT
        )
        await _until(lambda: len(run.core.rows) >= 0.9 * rows and begun[0] >= in_flight)
        run.stop(grace=0.0)
        report = await run.wait()
    assert report.held == report.accepted, report


async def _until(so: Callable[[], bool]) -> None:
    """A look from time to time: whoever reported it would be part of what is measured."""
    while not so():  # noqa: ASYNC110
        await anyio.sleep(0.01)


def _resume(rows: int) -> Iterable[Sample]:
    """The first life does all columns but the last; the second finds them in the store."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.db"
        anyio.run(partial(_run, _wide(BEHIND - 1), rows, store=store))
        yield from _memory(partial(_run, _wide(BEHIND), rows, store=store))


def _wide(columns: int) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("wide")

    async def body(row: int) -> int:
        return row

    for index in range(columns):
        pipeline.column(body, name=f"c{index}", model=MODEL)
    return pipeline


def _bare_s(tasks: int) -> float:
    """The longest turn of ``tasks`` bare tasks that wake up and fail in one moment, in seconds."""

    async def wake() -> None:
        answers = anyio.Event()

        async def one() -> None:
            try:
                await answers.wait()
                raise Answer(400)
            except Answer:
                return

        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(one)
            await anyio.sleep(0.1)
            answers.set()

    _, turns = run_watched(wake)
    return turns.longest_s


def _one_column() -> headgate.Pipeline:
    return _wide(1)


def _engine(concurrency: int = IN_FLIGHT, store: Path | None = None) -> headgate.Engine:
    return headgate.Engine(limits={"*": headgate.Limits(concurrency=concurrency)}, store=store, seed=1)


async def _run(
    pipeline: headgate.Pipeline, rows: int, *, store: Path | None = None, **options: int
) -> headgate.RunReport:
    async with _engine(store=store) as engine:
        run = await engine.start(pipeline, rows, **options)  # type: ignore[arg-type]
        return await run.wait()


SCENARIO = Scenario("lag", "The longest turn of the loop while thousands of things happen at once.", cases)
