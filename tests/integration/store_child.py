"""What the processes do that share a store in test_store_processes.py: ``store_child.py KIND PLACE ROLE [START]``.

All but the committer go on until they have done something and a file ``stop`` lies beside the store (for sweepers
``stop sweeping``), then say what they have done.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from headgate.errors import FencedOut, ResultExpired, UnknownRun
from headgate.storage import Batch, CellRecord, CellStatus, FileStore, HeldRecord, RowRecord, SpentRecord, SqliteStore
from headgate.values import Usage

if TYPE_CHECKING:
    from headgate.storage import RunHandle, StoredRow

KINDS = {"sqlite": SqliteStore, "file": FileStore}
COLUMNS = {"a": "1", "b": "1", "c": "1"}
COMMITTERS = 4
SHORT_ROWS = 6


def payload(row: int) -> bytes:
    """Every fifth one is a file of its own."""
    return b'"%s"' % (b"%07d" % row * (10_000 if row % 5 == 0 else 1))


def batch(row: int) -> Batch:
    """Everything about one row, so that half a batch can be told from a whole one."""
    return Batch(
        rows=(RowRecord(row, f"id{row}", b"digest", b"{}"),),
        cells=(
            CellRecord(row, "a", CellStatus.DONE, payload(row)),
            CellRecord(row, "b", CellStatus.FAILED, None, "bug"),
        ),
        held=(HeldRecord(row, "c", "rate_limited", 99.5, 1, b"[]"),),
        spent=(SpentRecord(row, "a", 1, "provider_error", Usage(1, 2)),),
    )


def is_whole(row: StoredRow) -> bool:
    """Whether a row is there with all that was committed with it."""
    wanted = batch(row.record.row)
    return (row.cells, row.held) == (wanted.cells, wanted.held)


def open_store(kind: str, place: Path) -> SqliteStore | FileStore:
    return SqliteStore(place / "store.db") if kind == "sqlite" else FileStore(place / "store", pack_after=16)


def goes_on(stop: Path, done: int, least: int) -> bool:
    return done < least or not stop.exists()


async def commit(store: SqliteStore | FileStore, start: int) -> None:
    """Commit rows without end, and acknowledge each by its number on a line; say if somebody has taken over."""
    handle = await store.open_run("run", COLUMNS)

    async def some(committer: int) -> None:
        row = start + committer
        while True:
            await handle.commit(batch(row))
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
            row += COMMITTERS

    try:
        async with anyio.create_task_group() as tasks:
            for committer in range(COMMITTERS):
                tasks.start_soon(some, committer)
    except* FencedOut:
        sys.stdout.write("fenced out\n")


async def begin_and_end(store: SqliteStore | FileStore, stop: Path, name: str) -> int:
    """Short runs, one after the other, which anybody may sweep as soon as they have ended."""
    runs = 0
    while goes_on(stop, runs, 3):
        handle: RunHandle = await store.open_run(f"short {name} {runs % 7}", COLUMNS)
        first = handle.info.rows
        assert first == 0 or first == SHORT_ROWS, f"{first} rows: swept by half"
        for row in range(SHORT_ROWS):
            await handle.commit(batch(row))
        loaded = await handle.load(0, SHORT_ROWS)
        assert len(loaded) == SHORT_ROWS
        assert all(map(is_whole, loaded)), "a run that goes on was swept"
        await handle.finish("completed")
        runs += 1
    return runs


async def sweep(store: SqliteStore | FileStore, stop: Path) -> int:
    swept = sweeps = 0
    while goes_on(stop, sweeps, 3):
        swept += len((await store.sweep(keep_s=0.0)).runs)
        sweeps += 1
    return swept + len((await store.sweep(keep_s=0.0)).runs)


def read_all(store: SqliteStore | FileStore, run: str) -> int:
    try:
        rows = list(store.read_rows(run, batch=3))
    except (UnknownRun, ResultExpired):
        return 0
    assert all(map(is_whole, rows)), "half a row"
    assert [row.record.row for row in rows] == sorted(row.record.row for row in rows)
    return len(rows)


async def read(store: SqliteStore | FileStore, stop: Path) -> int:
    seen = 0
    while goes_on(stop, seen, 1):
        for run in ("run", *(f"short {name} {number}" for name in ("one", "two") for number in range(7))):
            seen += await to_thread.run_sync(read_all, store, run)
    return seen


async def main(kind: str, place: Path, role: str, *rest: str) -> None:
    store, stop = open_store(kind, place), place / "stop"
    done = 0
    match role:
        case "commit":
            await commit(store, int(rest[0]))
        case "short":
            done = await begin_and_end(store, stop, rest[0])
        case "sweep":
            done = await sweep(store, place / "stop sweeping")
        case _:
            done = await read(store, stop)
    await store.aclose()
    sys.stdout.write(f"{done}\n")


if __name__ == "__main__":
    anyio.run(partial(main, sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
