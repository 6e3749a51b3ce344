"""What the engine itself costs: cells whose body does nothing.

CPU time of the whole process per cell, with 64 requests in flight. Beside it, in the same run, what asyncio costs alone
for as many calls: one task per cell behind one semaphore, no retry, no order, no bound, no result kept.
"""

from __future__ import annotations

import asyncio
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

import headgate

from ..measure import Case, Effort, Plan, Sample, Scenario, at_most, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..result import Goal

__all__ = ["SCENARIO"]

IN_FLIGHT = 64
MODELS = 4
HEARTBEAT_S = 0.005

IN_MEMORY_US = 60.0
DURABLE_US = 150.0
STALL_MS = 20.0


def cases(plan: Plan) -> Iterator[Case]:
    """1, 4, 16 and 64 columns, on models and local, in memory and on disk, at several sizes."""
    effort, seed = plan.effort, plan.seed
    wide = (1, 4) if effort is Effort.SMOKE else (1, 4, 16, 64)
    sizes = {Effort.SMOKE: (200,), Effort.QUICK: (1_000, 10_000), Effort.FULL: (1_000, 10_000, 100_000)}[effort]
    for cells in sizes:
        for columns in wide:
            name = f"{columns} model columns, {cells} cells, memory"
            yield Case(name, partial(_engine, columns, cells, seed, models=True, durable=False))
    some = effort.pick(200, 10_000, 20_000)
    for columns in wide:
        yield Case(
            f"{columns} local columns, {some} cells, memory",
            partial(_engine, columns, some, seed, models=False, durable=False),
        )
    for columns in wide:
        yield Case(
            f"{columns} model columns, {some} cells, SQLite",
            partial(_engine, columns, some, seed, models=True, durable=True),
        )


def _engine(columns: int, cells: int, seed: int, *, models: bool, durable: bool) -> Iterable[Sample]:
    rows = max(1, cells // columns)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.db" if durable else None
        with measured() as watch:
            stall_s = anyio.run(_run, _pipeline(columns, models=models), rows, store, seed)
    with measured() as raw:
        asyncio.run(_bare(rows * columns))
    count = rows * columns
    own_us, raw_us = watch.cpu_s / count * 1e6, raw.cpu_s / count * 1e6
    goal: Goal | None = at_most(DURABLE_US if durable else IN_MEMORY_US)
    yield Sample("CPU per cell", "us", own_us, goal if count >= 1_000 else None)
    yield Sample("asyncio alone", "us", raw_us)
    yield Sample("ratio", "x", own_us / raw_us)
    yield Sample("cells per second", "/s", count / watch.wall_s)
    if durable:
        yield Sample("longest stall of the loop", "ms", stall_s * 1e3, at_most(STALL_MS))


def _pipeline(columns: int, *, models: bool) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("noop")

    async def body(row: int) -> int:
        return row

    for index in range(columns):
        pipeline.column(body, name=f"c{index}", model=f"bench/m{index % MODELS}" if models else None)
    return pipeline


async def _run(pipeline: headgate.Pipeline, rows: int, store: Path | None, seed: int) -> float:
    """Run it and return the longest time, in seconds, that the loop kept a timer waiting."""
    limits = {"*": headgate.Limits(concurrency=IN_FLIGHT)}
    heartbeat = Heartbeat(asyncio.get_running_loop())
    if store is not None:
        heartbeat.beat()
    report = await headgate.arun(pipeline, rows, limits=limits, store=store, seed=seed)
    heartbeat.stop()
    assert report.done == rows, report
    return heartbeat.latest_s


class Heartbeat:
    """A timer that notes how late the loop calls it: the longest turn of the loop, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.latest_s = 0.0
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def beat(self) -> None:
        """Note the lateness, and set the timer again."""
        now = self._loop.time()
        if self._timer is not None:
            self.latest_s = max(self.latest_s, now - self._timer.when())
        self._timer = self._loop.call_later(HEARTBEAT_S, self.beat)

    def stop(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()


async def _bare(cells: int) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def body(row: int) -> int:
        return row

    async def one(row: int) -> None:
        async with slots:
            await body(row)

    async with asyncio.TaskGroup() as tasks:
        for row in range(cells):
            tasks.create_task(one(row))


SCENARIO = Scenario("overhead", "CPU time that the engine takes for a cell whose body does nothing.", cases)
