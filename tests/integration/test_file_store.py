"""The store in a directory: what is its own there and what is not, what a sweep takes away, and how few files stay."""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from headgate.errors import SchemaMismatch, UnknownRun
from headgate.storage import Batch, CellRecord, CellStatus, FileStore, RowRecord

if TYPE_CHECKING:
    from pathlib import Path

    from headgate.storage import RunHandle

COLUMNS = {"a": "1"}
SQLITE_CONNECT = sqlite3.connect
LARGE = b'"' + b"x" * 70_000 + b'"'


def files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def directories(place: Path) -> list[Path]:
    return [place, *(path for path in place.rglob("*") if path.is_dir())]


def newer(place: Path) -> Path:
    (place / "headgate-2").mkdir(parents=True, exist_ok=True)
    return place / "headgate-2"


def leave(directory: Path, name: str, age_s: float) -> Path:
    path = directory / name
    path.write_bytes(b"{}")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


async def commit(handle: RunHandle, rows: range) -> None:
    for row in rows:
        cell = CellRecord(row, "a", CellStatus.DONE, LARGE if row == 0 else b"%d" % row)
        await handle.commit(Batch(rows=(RowRecord(row, f"id{row}", b"digest", b"{}"),), cells=(cell,)))


async def test_what_a_store_reads_with_is_closed_with_it(tmp_path: Path) -> None:
    """From Python 3.13 on a connection that nobody has closed is a warning, and an error where tests make it one."""
    opened: list[sqlite3.Connection] = []

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(SQLITE_CONNECT(*arguments, **options))
        return opened[-1]

    store = FileStore(tmp_path / "store")
    handle = await store.open_run("run", COLUMNS)
    await commit(handle, range(2))
    await store.aclose()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        assert store.count_outcomes("run") == 2
    (reading,) = opened
    assert reading.execute("SELECT 1").fetchone() == (1,), "what is stored can still be read"
    del store, handle
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        reading.execute("SELECT 1")


async def test_files_of_others_are_neither_read_nor_removed(tmp_path: Path) -> None:
    """Names that look nearly like our own, in every directory of the store, however old."""
    store = FileStore(tmp_path / "store", pack_after=2)
    handle = await store.open_run("run", COLUMNS)
    await commit(handle, range(7))
    names = ("notes.txt", "00000099.bak", "0000001", ".tmp-backup", "pack.old", ".nfs0000000000000001", "core")
    strangers = [leave(place, name, 1e6) for place in directories(tmp_path) for name in names]
    strangers.append(leave(tmp_path / "store" / "headgate-1" / "runs", "file", 1e6))
    await store.sweep(keep_s=0.0)
    await commit(handle, range(7, 12))
    assert len(list(store.read_rows("run"))) == 12
    await handle.finish("completed")
    again = FileStore(tmp_path / "store")
    assert (await store.sweep(keep_s=0.0)).runs == ("run",)
    assert await (await again.open_run("run", COLUMNS)).load(0, 99) == []
    assert [path for path in strangers if not path.exists()] == []
    await store.aclose()
    await again.aclose()


async def test_temporary_files_go_when_no_writer_can_want_them(tmp_path: Path) -> None:
    """By the clock of the file system; what is younger than an hour may be somebody's who is at work."""
    store = FileStore(tmp_path / "store", pack_after=2)
    handle = await store.open_run("run", COLUMNS)
    await commit(handle, range(5))
    home = tmp_path / "store" / "headgate-1"
    only_directories = {home / "runs", home / "payloads", *home.glob("runs/*/segments"), *home.glob("payloads/*")}
    places = [place for place in directories(home) if place not in only_directories]
    old = [leave(place, ".tmp-" + "0" * 16, 4000) for place in places]
    young = [leave(place, ".tmp-" + "1" * 16, 3000) for place in places]
    assert (await store.sweep(keep_s=0.0)).leftovers >= len(old)
    assert [path for path in old if path.exists()] == []
    assert all(path.exists() for path in young)
    await store.aclose()


async def test_a_long_log_is_few_files(tmp_path: Path) -> None:
    """A file per commit while the segment is open, one per segment after; all of it is read from the packs."""
    store = FileStore(tmp_path / "store", pack_after=10)
    handle = await store.open_run("run", COLUMNS)
    await commit(handle, range(200))
    segments = 200 // 9 + 1
    assert len(files(tmp_path)) < 2 * segments + 10 + 3, "two for each segment, the open one, the name, a payload"
    reader = FileStore(tmp_path / "store")
    assert [row.cells[0].payload for row in reader.read_rows("run")] == [LARGE, *(b"%d" % row for row in range(1, 200))]
    await store.aclose()


async def test_a_directory_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """Nothing is made in it, and the error says what helps."""
    newer(tmp_path / "store")
    store = FileStore(tmp_path / "store")
    with pytest.raises(SchemaMismatch, match="version 2"):
        await store.probe()
    with pytest.raises(SchemaMismatch):
        await store.open_run("run", COLUMNS)
    with pytest.raises(SchemaMismatch):
        store.read_info("run")
    assert directories(tmp_path)[1:] == [tmp_path / "store", newer(tmp_path / "store")]
    await store.aclose()


async def test_reading_makes_nothing(tmp_path: Path) -> None:
    """A reader may have no right to write."""
    store = FileStore(tmp_path / "store")
    with pytest.raises(UnknownRun):
        store.read_rows("run")
    assert directories(tmp_path) == [tmp_path]
    assert (await store.sweep(keep_s=0.0)).runs == ()
    assert directories(tmp_path) == [tmp_path]
    await store.aclose()
