"""An engine that shares a run, for tests: ``sharing_child.py DSN SCHEMA NAME ROWS LEASE_S BACKEND``.

For each row that it does it writes ``start ROW`` before, and ``done ROW`` after the commit was acknowledged; at the end
``end``, or the name of the error that ended it. Its results bear its name, so that they tell who was first.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import anyio

from headgate.errors import StoreError
from headgate.storage import Batch, CellRecord, CellStatus, PostgresStore, RowRecord, SpentRecord, work_on_groups
from headgate.values import Usage

if TYPE_CHECKING:
    from headgate.storage import Claim

RUN = "shared"
COLUMNS = {"answer": "1"}
GROUP_ROWS = 8


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def share(dsn: str, schema: str, name: str, rows: int, lease_s: float) -> None:
    store = PostgresStore(dsn, schema=schema)
    run = await store.join_run(RUN, COLUMNS, group_rows=GROUP_ROWS)
    await run.extend(rows)
    say("joined", run.info.epoch)

    async def work(claim: Claim) -> None:
        finished = {stored.record.row for stored in await run.load(claim.first, claim.last) if stored.cells}
        for row in range(claim.first, claim.last):
            if row in finished:
                continue
            say("start", row)
            await anyio.sleep(0.002)
            cell = CellRecord(row, "answer", CellStatus.DONE, f'"{row} by {name}"'.encode())
            spent = SpentRecord(row, "answer", 1, "asked", Usage(1))
            await run.commit(Batch((RowRecord(row, f"id{row}", b"digest", b"{}"),), (cell,), spent=(spent,)))
            say("done", row)

    try:
        await work_on_groups(run, work, at_once=2, lease_s=lease_s)
    except* StoreError as errors:
        say(type(errors.exceptions[0]).__name__)
    else:
        say("end")
    await store.aclose()


if __name__ == "__main__":
    _, where, schema_name, own_name, row_count, lease, backend = sys.argv
    anyio.run(share, where, schema_name, own_name, int(row_count), float(lease), backend=backend)
