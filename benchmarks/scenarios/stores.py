"""What each store commits, and what the engine costs on it.

1, 64 and 1,024 tasks commit one record each, as soon as the one before was acknowledged, to a run of rows that are
there already; the durable stores wait for the disk. Among n writers a fair turn takes n times what a record takes:
``turns`` says how many of them the slowest hundredth waits. Each runs three times, by turns, and the best one counts.
The engine runs cells whose body does nothing, as in ``overhead``, in a few columns.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

import headgate
from headgate.storage import Batch, CellRecord, CellStatus, RowRecord

from ..baselines import ASYNCIO, baseline_us
from ..measure import Better, Case, Effort, Plan, Sample, Scenario, at_least, at_most, measured
from ..stores import IN_MEMORY, POSTGRES, Kind, durable, open_store
from .overhead import DURABLE_US, IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headgate.storage import RunHandle

    from ..result import MetricResult, ScenarioResult

__all__ = ["SCENARIO"]

WRITERS: Final = (1, 64, 1024)
COLUMNS: Final = 4
NO_LESS: Final = 0.9
"""A store that 64 writers keep busy commits no less for 1,024; two runs of one case differ by a tenth."""
ROUNDS: Final = 3
"""The best one counts: a disk that is busy with something else for a moment says nothing of the store."""
RATE, HALF, SLOW, TURNS, CELL = "records/s", "p50", "p99", "turns", "CPU per cell"


def cases(plan: Plan) -> Iterator[Case]:
    """One for each store."""
    effort = plan.effort
    seconds = effort.pick(10, 30, 700) / 1e3
    cells = effort.pick(80, 1_200, 8_000)
    for kind in (IN_MEMORY, *durable(server=effort is not Effort.QUICK)):
        yield Case(kind.name, partial(_store, kind, seconds, cells, plan.seed), runs=1)


def _store(kind: Kind, seconds: float, cells: int, seed: int) -> Iterable[Sample]:
    best: dict[int, tuple[float, list[float]]] = {}
    for _ in range(ROUNDS):
        for writers in WRITERS:
            with kind.at_a_new_place() as address:
                found = anyio.run(_commit, address, writers, seconds)
            best[writers] = max(found, best.get(writers, found))
    for writers, (rate, waits) in best.items():
        p50, p99 = (waits[int(len(waits) * share)] for share in (0.5, 0.99))
        yield Sample(f"{writers} writers: {RATE}", "/s", rate, better=Better.HIGHER, noisy=True)
        yield Sample(f"{writers} writers: {HALF}", "ms", p50 * 1e3, better=Better.LOWER, noisy=True)
        yield Sample(f"{writers} writers: {SLOW}", "ms", p99 * 1e3, better=Better.LOWER, noisy=True)
        yield Sample(f"{writers} writers: {TURNS}", "x", p99 * rate / writers, better=Better.LOWER, noisy=True)
    most, many = max(WRITERS), WRITERS[-2]
    yield Sample(f"{most} writers over {many}", "x", best[most][0] / best[many][0], at_least(NO_LESS), noisy=True)
    with kind.at_a_new_place() as address, measured() as watch:
        anyio.run(_engine, address, cells, seed)
    idle_us = baseline_us(ASYNCIO, cells, IN_FLIGHT)
    goal = None if kind is IN_MEMORY or cells < 1_000 else at_most(DURABLE_US)
    yield Sample(CELL, "us", watch.cpu_s / cells * 1e6, goal, noisy=True, baseline=ASYNCIO)
    yield Sample(ASYNCIO, "us", idle_us, noisy=True)


async def _commit(address: str, writers: int, seconds: float) -> tuple[float, list[float]]:
    """Records a second, and how long each of them waited, sorted."""
    store = open_store(address)
    handle = await store.open_run("run", {"a": "1"})
    rows = max(1_500, int(40_000 * seconds))
    await handle.commit(Batch(rows=tuple(RowRecord(row, f"id{row}", b"digest", b"{}") for row in range(rows))))
    waits: list[float] = []
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        numbers = iter(range(rows))
        for _ in range(writers):
            tasks.start_soon(_write, handle, numbers, began + seconds, waits)
    took_s = time.perf_counter() - began
    await store.aclose()
    return len(waits) / took_s, sorted(waits)


async def _write(handle: RunHandle, numbers: Iterator[int], until: float, waits: list[float]) -> None:
    for row in numbers:
        asked = time.perf_counter()
        await handle.commit(Batch(cells=(CellRecord(row, "a", CellStatus.DONE, b'"answer %d"' % row),)))
        waits.append(time.perf_counter() - asked)
        if time.perf_counter() >= until:
            return


async def _engine(address: str, cells: int, seed: int) -> None:
    pipeline = headgate.Pipeline("noop")

    async def body(row: int) -> int:
        return row

    for index in range(COLUMNS):
        pipeline.column(body, name=f"c{index}", model=f"bench/m{index}")
    store = open_store(address)
    limits = {"*": headgate.Limits(concurrency=IN_FLIGHT)}
    report = await headgate.arun(pipeline, cells // COLUMNS, limits=limits, store=store, seed=seed)
    assert report.done == cells // COLUMNS, report
    await store.aclose()


def table(result: ScenarioResult) -> Iterator[str]:
    """A line for each store and number of writers."""
    yield f"| store | writers | {RATE} | {HALF} | {SLOW} | {TURNS} | engine, {CELL} |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for case in result.cases:
        metrics = {metric.name: metric for metric in case.metrics}
        for writers in WRITERS:
            own = [_shown(metrics[f"{writers} writers: {name}"]) for name in (RATE, HALF, SLOW, TURNS)]
            cell = f"{_shown(metrics[CELL])}" if writers == WRITERS[0] else ""
            yield f"| {case.name} | {writers} | {' | '.join(own)} | {cell} |"
    if POSTGRES not in {case.name for case in result.cases}:
        yield ""
        yield "PostgreSQL was not measured: no server was started."


def _shown(metric: MetricResult) -> str:
    places = {"/s": 0, "x": 1, "ms": 2, "us": 1}[metric.unit]
    value = f"{metric.median:,.{places}f} {'' if metric.unit in ('/s', 'x') else metric.unit}".strip()
    return f"**{value}**" if metric.met is False else value


SCENARIO = Scenario(
    "stores", "What each store commits, how long a commit takes, and the engine's CPU per cell on it.", cases, table
)
