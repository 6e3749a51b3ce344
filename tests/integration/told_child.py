"""A run whose finished rows are told to a receiver, as a process that may be killed: ``told_child.py PLACE URL ROWS``.

Says ``up`` once it runs, and the number of each row that it has added to the outbox.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import anyio
import httpx2
import structlog

import headgate
from headgate.outbox import HttpSender, Outbox, OutboxOptions, SqliteDeliveries, key_of

OPTIONS = OutboxOptions(first_pause_s=0.02, longest_pause_s=0.2, timeout_s=5.0, trips_after=3)

pipeline = headgate.Pipeline("tickets")


@pipeline.column
async def square(row: int) -> int:
    await anyio.sleep(0.01)
    return row * row


async def main(place: Path, url: str, rows: int) -> None:
    async with (
        httpx2.AsyncClient(timeout=5) as client,
        Outbox(SqliteDeliveries(place / "outbox.db"), HttpSender(client), options=OPTIONS) as outbox,
        headgate.Engine(store=str(place / "tickets.db")) as engine,
    ):
        run = await engine.start(pipeline, rows)
        os.write(1, b"up\n")
        async for row in run.rows():
            body = json.dumps({"id": row.id, **row.values}).encode()
            if await outbox.add(key_of(run.name, row.id, body), url, body, run=run.name):
                os.write(1, f"{row.id}\n".encode())
        await run.wait()
        await outbox.drained()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
