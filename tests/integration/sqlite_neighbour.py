"""Another process on the same store. Run by the tests, told what to do by its first argument.

It says ``ready`` when it has done the first part, and goes on when its standard input ends or has a line.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import sys
from pathlib import Path

import anyio

from headgate.storage import Batch, CellRecord, CellStatus, RowRecord, SqliteStore, open_store


def ready_then_wait() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def lock(path: Path) -> None:
    """Hold the write lock, as a program that hangs in a transaction would."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    ready_then_wait()
    connection.execute("ROLLBACK")
    connection.close()


async def commit(path: Path, run: str) -> None:
    """Open the run and commit forty rows, one by one."""
    store = SqliteStore(path)
    ready_then_wait()
    handle = await store.open_run(run, {"a": "1"})
    for row in range(40):
        record = RowRecord(row, f"id{row}", b"digest", b"{}")
        await handle.commit(Batch(rows=(record,), cells=(CellRecord(row, "a", CellStatus.DONE, b"1"),)))
    await store.aclose()


async def leave_open(path: Path) -> None:
    """Hand a commit in, be cancelled, and end without closing anything."""
    store = SqliteStore(path)
    handle = await store.open_run("run", {"a": "1"})
    ready_then_wait()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await handle.commit(Batch(rows=(RowRecord(0, "id0", b"digest", b"{}"),)))


def fork(path: Path) -> None:
    """Use a store in a forked child, where its thread does not exist."""
    store = SqliteStore(path)
    anyio.run(store.probe)
    child = os.fork()
    if child == 0:
        try:
            anyio.run(store.probe)
        except Exception as error:
            os.write(1, f"{type(error).__name__}: {error}\n".encode())
        os._exit(0)
    os.waitpid(child, 0)
    anyio.run(store.aclose)


async def fill(path: Path, limit: int) -> None:
    """Commit rows until the system refuses to let a file grow; say which were acknowledged, and the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    store = SqliteStore(path)
    handle = await store.open_run("run", {"a": "1"})
    try:
        for row in range(1000):
            record = RowRecord(row, f"id{row}", b"digest", b" " * 20_000)
            await handle.commit(Batch(rows=(record,), cells=(CellRecord(row, "a", CellStatus.DONE, b"1"),)))
            print(row)
    except Exception as error:
        print(type(error).__name__)
    await store.aclose()


async def read_only(path: Path) -> None:
    """Read and write as a user who may only read."""
    if os.getuid() == 0:
        os.setuid(65534)  # only now: that user may not even be allowed to import what is needed
    store = SqliteStore(path)
    print(len(list(store.read_rows("run"))))
    try:
        await store.probe()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    try:
        open_store(path)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")


def main(what: str, path: Path, *rest: str) -> None:
    match what:
        case "lock":
            lock(path)
        case "commit":
            anyio.run(commit, path, rest[0])
        case "leave_open":
            anyio.run(leave_open, path)
        case "fork":
            fork(path)
        case "fill":
            anyio.run(fill, path, int(rest[0]))
        case "read_only":
            anyio.run(read_only, path)
        case _:
            raise SystemExit(f"{what}?")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
