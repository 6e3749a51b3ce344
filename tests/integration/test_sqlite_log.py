"""The write-ahead log: bounded while a run goes on, gone when the store is closed, read by whoever comes after."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from headgate.errors import ResultCorrupt
from headgate.storage import Batch, CellRecord, CellStatus, Durability, RowRecord, SqliteStore
from headgate.storage.sqlite_schema import STORE

if TYPE_CHECKING:
    from pathlib import Path

MEGABYTE = 1024 * 1024


def size(path: Path) -> int:
    return path.stat().st_size


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def copy_files(origin: Path, place: Path) -> None:
    place.mkdir()
    for path in origin.glob("s.db*"):
        (place / path.name).write_bytes(path.read_bytes())


def row(position: int, length: int) -> Batch:
    record = RowRecord(position, f"id{position}", b"digest", b" " * length)
    return Batch(rows=(record,), cells=(CellRecord(position, "a", CellStatus.DONE, b"1"),))


async def test_the_log_stays_small_beside_a_slow_reader(tmp_path: Path) -> None:
    """A reader that stops in the middle must not keep the log from being emptied."""
    path = tmp_path / "s.db"
    store = SqliteStore(path, durability=Durability.PROCESS)
    handle = await store.open_run("run", {"a": "1"})
    await handle.commit(row(0, 10))
    await handle.commit(row(1, 10))
    reader = SqliteStore(path).read_rows("run", batch=1)
    assert next(reader).record.row == 0
    largest = 0
    for position in range(2, 42):
        await handle.commit(row(position, MEGABYTE // 2))
        largest = max(largest, size(tmp_path / "s.db-wal"))
    assert size(path) > 14 * MEGABYTE
    assert largest < 8 * MEGABYTE
    assert [found.record.row for found in reader] == list(range(1, 42))
    await store.aclose()
    assert names(tmp_path) == ["s.db"]


async def test_many_small_commits_empty_the_log_too(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", durability=Durability.PROCESS)
    handle = await store.open_run("run", {"a": "1"})
    for position in range(600):
        await handle.commit(row(position, 10))
    # Every commit writes some eight pages of 4 kB, so without checkpoints this would be near 20 MB.
    assert size(tmp_path / "s.db-wal") < 8 * MEGABYTE
    await store.aclose()


async def test_reading_leaves_no_files_behind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    handle = await store.open_run("run", {"a": "1"})
    await handle.commit(row(0, 10))
    await store.aclose()
    assert len(list(SqliteStore(tmp_path / "s.db").read_rows("run"))) == 1
    assert names(tmp_path) == ["s.db"]


async def test_what_a_dead_process_left_in_the_log_is_read(tmp_path: Path) -> None:
    """D2: as after kill -9, or when the three files of a live store were copied."""
    place = tmp_path / "copy"
    store = SqliteStore(tmp_path / "s.db")
    handle = await store.open_run("run", {"a": "1"})
    await handle.commit(row(0, 10))
    copy_files(tmp_path, place)
    await store.aclose()
    assert size(place / "s.db-wal") > 0
    assert SqliteStore(place / "s.db").read_info("run").rows == 1


async def test_a_run_is_read_while_it_goes_on(tmp_path: Path) -> None:
    """D1: whatever was acknowledged is there for every reader at once, in order."""
    store = SqliteStore(tmp_path / "s.db")
    handle = await store.open_run("run", {"a": "1"})
    for position in range(10):
        await handle.commit(row(position, 10))
        other = SqliteStore(tmp_path / "s.db")
        assert [found.record.row for found in other.read_rows("run", batch=3)] == list(range(position + 1))
    await store.aclose()


async def test_t52_resume_at_row_group_grain(tmp_path: Path) -> None:
    """T52: a crash cost whole row groups, and a cancel after 98 of 100 cells kept nothing. Here each cell is kept."""
    columns = [f"c{number}" for number in range(10)]
    store = SqliteStore(tmp_path / "s.db")
    handle = await store.open_run("run", dict.fromkeys(columns, "1"))
    await handle.commit(Batch(rows=tuple(RowRecord(place, f"id{place}", b"digest", b"{}") for place in range(10))))
    cells = [CellRecord(place, column, CellStatus.DONE, b"1") for place in range(10) for column in columns]
    for cell in cells[:98]:
        await handle.commit(Batch(cells=(cell,)))
    # Nobody finishes or closes the run; another process takes it up.
    after = SqliteStore(tmp_path / "s.db")
    resumed = await after.open_run("run", dict.fromkeys(columns, "1"))
    kept = [(cell.row, cell.column) for found in await resumed.load(0, 10) for cell in found.cells]
    assert kept == [(cell.row, cell.column) for cell in cells[:98]]
    await after.aclose()
    await store.aclose()


async def test_a_checkpoint_that_is_not_finished_is_no_damage(tmp_path: Path) -> None:
    """T45: a file whose header tells of pages that stand only in the log was said to be malformed, and that lasts for
    as long as a reader keeps the checkpoint from going on: a run could not be looked at, nor resumed after a kill.
    """
    path = tmp_path / "s.db"
    store = SqliteStore(path, durability=Durability.PROCESS)
    await (await store.open_run("run", {"a": "1"})).commit(row(0, 10))
    await store.aclose()
    with ExitStack() as stack:
        writer, reader = (stack.enter_context(closing(sqlite3.connect(path, isolation_level=None))) for _ in range(2))
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("CREATE TABLE last_page (x)")
        writer.execute("INSERT INTO last_page VALUES (1)")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM last_page").fetchall()
        writer.execute("UPDATE last_page SET x = 2")  # its older copy is not written, its newer one not yet
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with (
            closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as bare,
            pytest.raises(sqlite3.DatabaseError),
        ):
            bare.execute("PRAGMA application_id")
        assert STORE.check_identity(path)
        assert SqliteStore(path).read_runs() == ("run",)
        copy_files(tmp_path, tmp_path / "killed")
    await resumes(path)
    await resumes(tmp_path / "killed" / "s.db")


async def resumes(path: Path) -> None:
    store = SqliteStore(path)
    assert [found.record.row for found in await (await store.open_run("run", {"a": "1"})).load(0, 10)] == [0]
    await store.aclose()


async def test_a_file_that_is_cut_short_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = SqliteStore(path, durability=Durability.PROCESS)
    await (await store.open_run("run", {"a": "1"})).commit(row(0, 100_000))
    await store.aclose()
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(ResultCorrupt, match="malformed"):
        SqliteStore(path).read_runs()
    again = SqliteStore(path)
    with pytest.raises(ResultCorrupt, match="malformed"):
        await again.open_run("run", {"a": "1"})
    await again.aclose()
