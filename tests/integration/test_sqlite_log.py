"""The write-ahead log: bounded while a run goes on, gone when the store is closed, read by whoever comes after."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
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


def test_the_middle_of_a_checkpoint_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T45: a process that looked while another emptied the log into the file was told that the file was malformed."""
    path = tmp_path / "s.db"

    async def fill() -> None:
        store = SqliteStore(path, durability=Durability.PROCESS)
        await (await store.open_run("run", {"a": "1"})).commit(row(0, 100_000))
        await store.aclose()

    anyio.run(fill)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8192])  # the header tells of pages that have not been written yet
    with pytest.raises(ResultCorrupt):
        STORE.check_identity(path)
    (tmp_path / "s.db-wal").write_bytes(b"somebody has it open")

    def finish_the_checkpoint(_: float) -> None:
        path.write_bytes(whole)

    monkeypatch.setattr(time, "sleep", finish_the_checkpoint)
    assert STORE.check_identity(path)
