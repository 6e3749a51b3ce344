"""Several processes on one store: waited for, told apart by epoch, and never in each other's way for good."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.errors import FencedOut, StoreUnavailable
from headgate.storage import Batch, CellRecord, CellStatus, RowRecord, SqliteStore
from tests.integration.warm_children import WarmChild, run_warm

if TYPE_CHECKING:
    from collections.abc import Generator

NEIGHBOUR = Path(__file__).with_name("sqlite_neighbour.py")


@contextmanager
def neighbour(*arguments: str | Path) -> Generator[WarmChild]:
    """Start the other process and wait until it is ready; at the end let it go on, and wait for it."""
    command = [sys.executable, str(NEIGHBOUR), *map(str, arguments)]
    with WarmChild(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        go_on(process)
        assert process.wait(60) == 0


def go_on(process: WarmChild) -> None:
    assert process.stdin is not None
    if not process.stdin.closed:
        process.stdin.close()


def finished(*arguments: str | Path) -> str:
    """Run the other process to its end and return what it said."""
    command = [sys.executable, str(NEIGHBOUR), *map(str, arguments)]
    done = run_warm(command, timeout=60, check=True)
    return done.stdout


def row(position: int) -> Batch:
    record = RowRecord(position, f"id{position}", b"digest", b"{}")
    return Batch(rows=(record,), cells=(CellRecord(position, "a", CellStatus.DONE, b"1"),))


async def test_t55_database_is_locked_as_a_final_error(tmp_path: Path) -> None:
    """T55: contention killed the run. Here the lock is waited for, longer than SQLite itself waits at a time."""
    store = SqliteStore(tmp_path / "s.db", busy_timeout_s=60.0)
    handle = await store.open_run("run", {"a": "1"})
    with neighbour("lock", tmp_path / "s.db") as process:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(handle.commit, row(0))
            await anyio.sleep(0.6)
            assert store.read_info("run").rows == 0
            go_on(process)
    assert store.read_info("run").rows == 1
    await store.aclose()


async def test_t55_waiting_has_a_bound_and_is_not_the_end(tmp_path: Path) -> None:
    """T55: past the bound the commit is StoreUnavailable, which may be tried again, and then it works."""
    store = SqliteStore(tmp_path / "s.db", busy_timeout_s=0.1)
    handle = await store.open_run("run", {"a": "1"})
    with neighbour("lock", tmp_path / "s.db"):
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="another process keeps it locked") as caught:
                await handle.commit(row(0))
            assert caught.value.retryable
        assert store.read_info("run").rows == 0
    await handle.commit(row(0))
    assert store.read_info("run").rows == 1
    await store.aclose()


async def test_a_locked_store_can_be_opened_later(tmp_path: Path) -> None:
    await SqliteStore(tmp_path / "s.db").aclose()
    (tmp_path / "s.db").touch()
    store = SqliteStore(tmp_path / "s.db", busy_timeout_s=0.1)
    with neighbour("lock", tmp_path / "s.db"), pytest.raises(StoreUnavailable):
        await store.probe()
    await store.probe()
    await store.aclose()


async def test_two_processes_that_start_at_once_on_an_empty_disk(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with neighbour("commit", path, "one") as first, neighbour("commit", path, "two") as second:
        go_on(first)
        go_on(second)
        store = SqliteStore(path)
        handle = await store.open_run("three", {"a": "1"})
        for position in range(40):
            await handle.commit(row(position))
    assert [store.read_info(run).rows for run in ("one", "two", "three")] == [40, 40, 40]
    await store.aclose()


async def test_d4_an_old_epoch_cannot_write_after_a_new_one_opened(tmp_path: Path) -> None:
    """D4, across processes: the one that was replaced is told so at its next commit, and nothing of it is kept."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    old = await store.open_run("run", {"a": "1"})
    await old.commit(row(0))
    with neighbour("commit", path, "run") as process:
        go_on(process)
        assert process.wait(60) == 0
    with pytest.raises(FencedOut, match="epoch 2"):
        await old.commit(row(50))
    with pytest.raises(FencedOut):
        await old.finish("completed")
    info = store.read_info("run")
    assert (info.epoch, info.rows, info.status) == (2, 40, "running")
    await store.aclose()


async def test_t42_result_in_one_pod(tmp_path: Path) -> None:
    """T42: rows were kept in the worker that made them; asking another gave 4 of 20. Here any process can read them."""
    path = tmp_path / "s.db"
    with neighbour("commit", path, "run") as process:
        go_on(process)
        assert process.wait(60) == 0
    reader = SqliteStore(path)
    assert len(list(reader.read_rows("run", batch=7))) == 40


def test_a_store_that_nobody_closed_neither_hangs_nor_loses(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with neighbour("leave_open", path) as process:
        # While it ends, it cannot write yet.
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            go_on(process)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.7)
            connection.execute("ROLLBACK")
        assert process.wait(60) == 0
    assert SqliteStore(tmp_path / "s.db").read_info("run").rows == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.db"]


def test_a_store_carried_across_a_fork_says_so(tmp_path: Path) -> None:
    assert "open a store after a fork" in finished("fork", tmp_path / "s.db")
