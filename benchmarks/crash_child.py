"""The program that the crash scenario kills: two columns over rows, durable, each request noted before it is sent.

``python -m benchmarks.crash_child ADDRESS REQUESTS ROWS``, with an address as :mod:`benchmarks.stores` gives it. A line
``<column> <row>`` goes to the file REQUESTS for each request, in one write that outlives the process, as a provider's
account would; ``done <row>`` goes to standard output when the row is handed out, that is when its results are durable.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import anyio

import headgate

from .stores import open_store

__all__ = ["COLUMNS", "SLOTS"]

COLUMNS = ("answer", "verdict")
SLOTS = 8
MEAN_S = 0.02


def pipeline_over(requests: int) -> headgate.Pipeline:
    """The pipeline; ``requests`` is an open file descriptor."""
    pipeline = headgate.Pipeline("crash")
    rng = random.Random()  # another one in each life

    async def ask(column: str, row: int) -> int:
        os.write(requests, f"{column} {row}\n".encode())
        await anyio.sleep(rng.uniform(0.5, 1.5) * MEAN_S)
        return row

    @pipeline.column(model="bench/m")
    async def answer(row: int) -> int:
        return await ask("answer", row)

    @pipeline.column(model="bench/m")
    async def verdict(answer: int) -> int:
        return await ask("verdict", answer)

    return pipeline


async def live(address: str, requests: Path, rows: int) -> int:
    """One life: from where the store is to the end, if nothing comes between."""
    account = os.open(requests, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    store = open_store(address)
    try:
        async with headgate.Engine(limits={"*": {"concurrency": SLOTS}}, store=store) as engine:
            run = await engine.start(pipeline_over(account), rows)
            async for row in run.rows():
                assert row.ok
                os.write(1, f"done {row.id}\n".encode())
            report = await run.wait()
    finally:
        await store.aclose()
        os.close(account)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(anyio.run(live, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
