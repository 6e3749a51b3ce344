"""What the memory scenario starts: rows streamed through one run, and what that took.

``python -m benchmarks.memory_child WAY ROWS STORE``; STORE is a path, or nothing for memory. The last line of standard
output says it as JSON: CPU seconds, rows seen, resident bytes at the first request and at most. Those are counted from
what the process had with everything imported, and not at all where the operating system does not tell (no ``/proc``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

import headgate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    Row = Mapping[str, object]

__all__ = ["MIB", "WAYS"]

STATM = Path("/proc/self/statm")
MIB = 1024 * 1024
SAMPLE_EVERY_S = 0.02
IN_FLIGHT = 64
FAILING = 100  # every so many rows fails, where rows fail

WAYS = ("an async generator", "an iterable", "a slow consumer", "no consumer", "1 % fail", "groups of one")
"""How rows come and go: all but the slow one take what they get; groups of one are a group column over each row."""


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


if __name__ == "__main__":
    main()
