"""A whole engine that shares a run, for tests: ``engine_share_child.py DSN SCHEMA ROWS LEASE_S VERSION ON_CHANGE``.

It says ``ready`` and waits for a line. It writes ``ask ROW`` for each request, before it is sent, and at the end
``end`` with the counts of its report and of the results of the whole run, or what ended it. Its answers bear the
version of its column; of version ``with a bug`` the first row fails.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, cast

import anyio

import headgate
from headgate.errors import HeadgateError
from headgate.storage import PostgresStore

if TYPE_CHECKING:
    from headgate.engine.changes import OnChange

SLOTS = 8
RUN = "shared"


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def pipeline(version: str, *, longer: bool = False) -> headgate.Pipeline:
    made = headgate.Pipeline(RUN)

    @made.column(model="test/m", version=version)
    async def answer(row: int) -> str:
        say("ask", row)
        if version == "with a bug" and row == 0:
            raise ValueError(row)
        await anyio.sleep(0.02)
        return f"{row} by version {version}"

    @made.column
    async def length(answer: str) -> int:
        return len(answer)

    if longer:

        @made.column
        async def again(length: int) -> int:
            return length

    return made


async def share(dsn: str, schema: str, rows: int, lease_s: float, version: str, on_change: OnChange) -> None:
    store = PostgresStore(dsn, schema=schema)
    try:
        async with headgate.Engine(limits={"*": {"concurrency": SLOTS}}, store=store) as engine:
            say("ready")
            await anyio.to_thread.run_sync(sys.stdin.readline)
            report = await engine.share(pipeline(version), rows, lease_s=lease_s, on_change=on_change)
            results = await anyio.to_thread.run_sync(lambda: sum(1 for _ in report.results()))
            say("end", report.done, results)
    except HeadgateError as error:
        say(type(error).__name__, error)
    await store.aclose()


if __name__ == "__main__":
    _, where, schema_name, row_count, lease, own_version, change = sys.argv
    anyio.run(share, where, schema_name, int(row_count), float(lease), own_version, cast("OnChange", change))
