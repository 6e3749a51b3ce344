"""An engine's process as a store sees it: commits rows one by one, and says which were acknowledged. Run by tests.

``postgres_child.py DSN SCHEMA COMMITTERS ROWS``: each committer commits its share of the rows in order, and after each
one a line with its number is written. The last line is ``end``, or the name of the error that ended it.
"""

from __future__ import annotations

import os
import sys

import anyio

from headgate.errors import StoreError
from headgate.storage import Batch, CellRecord, CellStatus, HeldRecord, PostgresStore, RowRecord, SpentRecord, StoredRow
from headgate.values import Usage

RUN = "run"
COLUMNS = {"a": "1", "b": "1", "c": "1"}


def batch(row: int) -> Batch:
    """Everything about one row, so that half a batch can be told from a whole one."""
    return Batch(
        rows=(RowRecord(row, f"id{row}", b"digest", b"{}"),),
        cells=(
            CellRecord(row, "a", CellStatus.DONE, f'"answer {row}"'.encode(), usage=Usage(1, 1)),
            CellRecord(row, "b", CellStatus.FAILED, None, "bug"),
        ),
        held=(HeldRecord(row, "c", "rate_limited", 99.5, 1, b"[]"),),
        spent=(SpentRecord(row, "a", 1, "provider_error", Usage(1, 2)),),
    )


def expected(row: int) -> StoredRow:
    whole = batch(row)
    return StoredRow(whole.rows[0], whole.cells, whole.held)


def say(word: object) -> None:
    os.write(1, f"{word}\n".encode())


async def commit_all(dsn: str, schema: str, committers: int, rows: int) -> None:
    store = PostgresStore(dsn, schema=schema)
    handle = await store.open_run(RUN, COLUMNS)
    say("open")

    async def commit_some(first: int) -> None:
        for row in range(first, rows, committers):
            await handle.commit(batch(row))
            say(row)

    try:
        async with anyio.create_task_group() as tasks:
            for first in range(committers):
                tasks.start_soon(commit_some, first)
    except* StoreError as errors:
        say(type(errors.exceptions[0]).__name__)
    else:
        say("end")
    await store.aclose()


if __name__ == "__main__":
    anyio.run(commit_all, sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
