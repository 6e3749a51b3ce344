"""What a long run keeps: rows streamed in and out, up to a million, in a process of their own.

Resident memory is that of the process less what it had with everything imported and an engine open. Where the operating
system says nothing of it (no ``/proc``), only the CPU time is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

import headgate

from ..measure import Case, Effort, Plan, Sample, Scenario, at_most

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    Row = Mapping[str, object]

__all__ = ["SCENARIO"]

ROOT = Path(__file__).resolve().parents[2]
STATM = Path("/proc/self/statm")
GOAL_MIB = 150.0
GOAL_ROWS = 1_000_000
MIB = 1024 * 1024
SAMPLE_EVERY_S = 0.02
IN_FLIGHT = 64
FAILING = 100  # every so many rows fails, where rows fail

WAYS = ("an async generator", "an iterable", "a slow consumer", "no consumer", "1 % fail", "groups of one")
"""How rows come and go: all but the slow one take what they get; groups of one are a group column over each row."""


def cases(plan: Plan) -> Iterator[Case]:
    """Each way in memory, and the first of them on disk as well, and at several sizes up to a million rows.

    What is measured is CPU time and memory, so several children may run at once. All begin with the first case.
    """
    usual = plan.effort.pick(50, 2_500, 100_000)
    wanted = [(usual, way, False) for way in WAYS] + [(usual, WAYS[0], True)]
    if plan.effort is Effort.FULL:  # the longest first
        wanted = [(GOAL_ROWS, WAYS[0], False), *wanted, (usual // 10, WAYS[0], False), (usual // 10, WAYS[0], True)]
    named = {f"{rows} rows, {way}{', SQLite' * durable}": (way, rows, durable) for rows, way, durable in wanted}
    asked = {name: one for name, one in named.items() if plan.wants(name)}
    with ThreadPoolExecutor(plan.jobs) as children:
        found = {name: children.submit(_child, *one) for name, one in asked.items()}
        for name, (_, rows, _) in asked.items():
            yield Case(name, partial(_samples, rows, found[name]), runs=1)


def _child(way: str, rows: int, durable: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store.db") if durable else ""
        command = [sys.executable, "-c", f"from {__name__} import main; main()", way, str(rows), store]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _samples(rows: int, child: Future[dict[str, float]]) -> Iterable[Sample]:
    found = child.result()
    yield Sample("CPU per row", "us", found["cpu_s"] / rows * 1e6, noisy=True)
    yield Sample("rows missing", "", rows - found["seen"], at_most(0))
    if "peak" in found:
        goal = at_most(GOAL_MIB) if rows == GOAL_ROWS else None
        yield Sample("memory before the first request", "MiB", found["first"] / MIB, goal)
        yield Sample("memory at most", "MiB", found["peak"] / MIB, goal)


class _Memory:
    """Resident bytes since it was made: now, at the first request, at most."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._before = self._resident()
        self.first: float | None = None
        self.peak = 0.0

    def look(self) -> float:
        """How much it is now."""
        now = self._resident() - self._before
        self.peak = max(self.peak, now)
        return now

    async def watch(self) -> None:
        while True:
            self.look()
            await anyio.sleep(SAMPLE_EVERY_S)

    def _resident(self) -> float:
        return int(STATM.read_text(encoding="ascii").split()[1]) * self._page


async def _stream(way: str, rows: int, store: str, memory: _Memory | None) -> dict[str, float]:
    """One run, as a user would stream it; what it took."""
    seen, cpu = 0, time.process_time()
    limits = {"*": headgate.Limits(concurrency=IN_FLIGHT)}
    async with headgate.Engine(limits=limits, store=store or None, seed=1) as engine:
        run = await engine.start(
            _pipeline(way, memory), _rows(way, rows), group_size=1 if way == "groups of one" else 32
        )
        if way != "no consumer":
            async for _ in run.rows():
                seen += 1
                if way == "a slow consumer" and not seen % 100:
                    await anyio.sleep(0.001)
        report = await run.wait()
    assert report.accepted == rows, report
    ended = report.done + report.failed if way == "no consumer" else seen
    return {"cpu_s": time.process_time() - cpu, "seen": float(ended)}


async def _watched(way: str, rows: int, store: str, memory: _Memory) -> dict[str, float]:
    found: dict[str, float] = {}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(memory.watch)
        found |= await _stream(way, rows, store, memory)
        tasks.cancel_scope.cancel()
    memory.look()
    return found | {"first": memory.first or 0.0, "peak": memory.peak}


def _pipeline(way: str, memory: _Memory | None) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("stream")

    @pipeline.column(model="bench/m")
    async def answer(row: int, text: str) -> str:
        if memory is not None and memory.first is None:
            memory.first = memory.look()
        if way == "1 % fail" and not row % FAILING:
            raise ValueError(text)
        return text

    if way == "groups of one":

        @pipeline.column(scope="group")
        async def together(answer: list[str]) -> list[int]:
            return [len(one) for one in answer]

    return pipeline


def _rows(way: str, rows: int) -> AsyncIterator[Row] | Iterator[Row]:
    one_by_one: Iterator[Row] = ({"row": row, "text": f"the text of row {row}"} for row in range(rows))
    if way == "an iterable":
        return one_by_one

    async def stream() -> AsyncIterator[Row]:
        for row in one_by_one:
            yield row

    return stream()


def main() -> None:
    """One way of streaming in this process; prints what it took."""
    way, rows, store = sys.argv[1:]
    if STATM.exists():
        found = anyio.run(_watched, way, int(rows), store, _Memory())
    else:
        found = anyio.run(_stream, way, int(rows), store, None)
    print(json.dumps(found))


SCENARIO = Scenario("memory", "Resident memory and CPU time while rows are streamed in and out.", cases)
