"""A run whose bodies never suspend must not keep the loop to itself."""

from __future__ import annotations

from typing import Literal

import anyio
import anyio.lowlevel
import pytest

import headgate
from headgate.testing.clock import run_virtual

IN_FLIGHT = 64


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("model", [None, "openai/gpt-x"])
def test_t25_stalls_of_the_loop(backend: Literal["asyncio", "trio"], model: str | None) -> None:
    """T25: elsewhere 20,000 cells that became ready in one step stopped the loop for 741 ms.

    Here another task gets its turn after a bounded number of cells. With the bound kept by each worker for itself, 64
    workers ran 4,096 cells between two turns.
    """
    cells = 0
    between: list[int] = []
    pipeline = headgate.Pipeline("busy")

    @pipeline.column(model=model)
    async def body(row: int) -> int:
        nonlocal cells
        cells += 1
        return row

    async def look(done: anyio.Event) -> None:
        seen = 0
        while not done.is_set():
            between.append(cells - seen)
            seen = cells
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        done = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look, done)
            report = await headgate.arun(
                pipeline, 6_000, limits={"*": headgate.Limits(concurrency=IN_FLIGHT)}, max_workers=IN_FLIGHT, seed=1
            )
            done.set()
            assert report.done == 6_000

    run_virtual(main, backend=backend)
    assert sum(between) >= 5_000, "the other task hardly ran"
    assert max(between) <= 4 * IN_FLIGHT
