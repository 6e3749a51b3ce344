"""Commits in a child process and kills it with SIGKILL, then looks at what is left. Run by
test_sqlite_crash.py.

It is a program of its own, because it forks: that is safe only in a process without threads. ``statements``
kills the child at its n-th SQL statement, for every ``stride``-th n until it gets through; ``acknowledged``
kills it from outside after the n-th acknowledgement. It prints what it did as JSON, and fails on the first
promise that does not hold.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import anyio

from headgate.storage import (
    Batch,
    CellRecord,
    CellStatus,
    Durability,
    HeldRecord,
    RowRecord,
    RunHandle,
    SpentRecord,
    SqliteStore,
    StoredRow,
)
from headgate.values import Usage

COMMITTERS = 3
COMMITS = 4
FINGERPRINTS = {"a": "1", "b": "1", "c": "1"}


def batch(row: int) -> Batch:
    """Everything about one row, so that half a batch can be told from a whole one."""
    text = f'"answer {row}"'.encode()
    return Batch(
        rows=(RowRecord(row, f"id{row}", b"digest", b"{}"),),
        cells=(CellRecord(row, "a", CellStatus.DONE, text), CellRecord(row, "b", CellStatus.FAILED, None, "bug")),
        held=(HeldRecord(row, "c", "rate_limited", 99.5, 1, b"[]"),),
        spent=(SpentRecord(row, "a", 1, "provider_error", Usage(1, 2)),),
    )


async def commit_all(path: Path, durability: Durability, acknowledge: int, stop_after: int) -> None:
    said = 0
    store = SqliteStore(path, durability=durability)
    handle = await store.open_run("run", FINGERPRINTS)

    async def commit_some(committer: int, to: RunHandle) -> None:
        nonlocal said
        for turn in range(COMMITS):
            row = turn * COMMITTERS + committer
            await to.commit(batch(row))
            os.write(acknowledge, f"{row}\n".encode())
            said += 1
            if said == stop_after:
                signal.pause()  # only the store goes on until the kill, however late that comes

    async with anyio.create_task_group() as tasks:
        for committer in range(COMMITTERS):
            tasks.start_soon(commit_some, committer, handle)
    await store.aclose()


def kill_at_statement(number: int) -> None:
    """Make this process die when SQLite starts its ``number``-th statement."""
    left = number
    connect = sqlite3.connect

    def count(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*where: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*where, **options)
        connection.set_trace_callback(count)
        return connection

    mock.patch.object(sqlite3, "connect", traced).start()


def run_child(path: Path, *, at_statement: int = 0, after: int = 0) -> tuple[bool, set[int]]:
    """Return whether the child was killed, and the rows that it had acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        if at_statement:
            kill_at_statement(at_statement)
        durability = Durability.PROCESS if at_statement else Durability.HOST
        stop_after = after if after % 4 >= 2 else 0
        anyio.run(
            commit_all, path, durability, writing, stop_after, backend=("asyncio", "trio")[(at_statement + after) % 2]
        )
        if after:
            signal.pause()  # whoever is to kill it may be slow
        os._exit(0)
    os.close(writing)
    acknowledged: set[int] = set()
    with os.fdopen(reading) as lines:
        for line in lines:
            acknowledged.add(int(line))
            if len(acknowledged) == after:
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the child failed: {status}"
    return os.WIFSIGNALED(status), acknowledged


def check_what_is_left(path: Path, acknowledged: set[int]) -> None:
    """D2: nothing acknowledged is lost, nothing is there by half, and of each committer there is a prefix."""
    store = SqliteStore(path, durability=Durability.PROCESS)
    stored = list(store.read_rows("run")) if has_run(path) else []
    rows = {found.record.row for found in stored}
    assert acknowledged <= rows, f"lost: {acknowledged - rows}"
    assert len(rows - acknowledged) <= COMMITTERS, f"more than was in flight: {rows - acknowledged}"
    for found in stored:
        assert found == expected(found.record.row), f"half a batch: {found}"
    for committer in range(COMMITTERS):
        mine = sorted(row for row in rows if row % COMMITTERS == committer)
        assert mine == [turn * COMMITTERS + committer for turn in range(len(mine))], f"a hole: {mine}"


def expected(row: int) -> StoredRow:
    whole = batch(row)
    return StoredRow(whole.rows[0], whole.cells, whole.held)


def has_run(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    connection = sqlite3.connect(path)
    try:
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'run'").fetchone()[0]
        return bool(tables and connection.execute("SELECT count(*) FROM run").fetchone()[0])
    finally:
        connection.close()


def check_it_can_go_on(path: Path) -> None:
    """D5: the same work again, by the next process, gives what one process without a crash gives."""
    _, acknowledged = run_child(path)
    store = SqliteStore(path)
    assert acknowledged == set(range(COMMITTERS * COMMITS))
    assert list(store.read_rows("run")) == [expected(row) for row in range(COMMITTERS * COMMITS)]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert not path.with_name(f"{path.name}-wal").exists()


def main(mode: str, stride: int) -> None:
    kills = 0
    partial = 0
    number = 0
    killed = True
    while killed:
        number += stride
        place = Path(tempfile.mkdtemp())
        path = place / "store.db"
        if mode == "statements":
            killed, acknowledged = run_child(path, at_statement=number)
        else:
            killed, acknowledged = run_child(path, after=number)
            killed = killed and number < COMMITTERS * COMMITS - 1
        kills += killed
        partial += 0 < len(acknowledged) < COMMITTERS * COMMITS
        check_what_is_left(path, acknowledged)
        if number % (4 * stride) == 0 or not killed:
            check_it_can_go_on(path)
        shutil.rmtree(place)
    print(json.dumps({"kills": kills, "partial": partial}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
