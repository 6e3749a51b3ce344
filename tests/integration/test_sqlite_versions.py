"""A store that an earlier headgate made opens, keeps what it has, and gets the tables that have come since."""

from __future__ import annotations

import multiprocessing
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from zlib import crc32

import anyio
import pytest

from headgate.errors import SchemaMismatch
from headgate.storage import Batch, CellRecord, CellStatus, Durability, RowRecord, SqliteStore, StoredRow
from headgate.storage.sqlite_schema import VERSION
from headgate.values import Usage

ROOT = Path(__file__).resolve().parents[2]
RECORD = RowRecord(0, "id0", b"digest", b"{}")
FILLED = Batch(rows=(RECORD,), cells=(CellRecord(0, "a", CellStatus.DONE, b'"kept"'),))


SINCE = {2: "learned", 3: "generation", 4: "register"}
"""Which table each version added."""


async def made_by(version: int, path: Path) -> None:
    """Earlier formats were this one without the tables that came later, and checksums covered values only."""
    store = SqliteStore(path, durability=Durability.PROCESS)
    handle = await store.open_run("run", {"a": "1"})
    await handle.commit(FILLED)
    await store.aclose()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for since, table in SINCE.items():
            if since > version:
                connection.execute(f"DROP TABLE {table}")
        connection.create_function("crc32", 1, crc32)
        connection.execute("UPDATE cell SET checksum = crc32(coalesce(payload, x''))")
        connection.execute("UPDATE input_row SET checksum = crc32(data)")
        connection.execute(f"PRAGMA user_version = {version}")


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found


@pytest.mark.parametrize("earlier", [1, 2, 3, 4])
async def test_an_earlier_file_is_read_as_it_is_and_brought_up_to_date_by_the_first_write(
    tmp_path: Path, earlier: int
) -> None:
    path = tmp_path / "s.db"
    await made_by(earlier, path)
    store = SqliteStore(path, durability=Durability.PROCESS)
    assert list(store.read_rows("run")) == [StoredRow(RECORD, FILLED.cells, ())]
    assert store.read_spent("run") == {"a": Usage()}
    assert version(path) == earlier, "reading changes nothing"
    handle = await store.open_run("run", {"a": "2"}, renewed=["a"])
    assert await handle.load(0, 9) == [StoredRow(RECORD, (), ())]
    assert handle.learned is None
    await handle.commit(Batch(learned=b'{"x":1}'))
    again = await store.open_run("run", {"a": "1"}, renewed=["a"])
    assert again.learned == b'{"x":1}'
    (row,) = await again.load(0, 9)
    assert row.cells == FILLED.cells
    await store.aclose()
    assert version(path) == VERSION


def _open_and_leave(path: str) -> None:
    async def run() -> None:
        store = SqliteStore(path, durability=Durability.PROCESS)
        await store.probe()
        await store.aclose()

    anyio.run(run)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_processes_that_open_an_earlier_file_together_bring_it_up_to_date_once(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await made_by(1, path)
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_open_and_leave, args=(str(path),)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert version(path) == VERSION


def test_no_statement_numbers_its_placeholders() -> None:
    """Python 3.12 takes "?1" for a name before 3.12.4, and warns of each sequence that is given for it."""
    modules = [*(ROOT / "src" / "storage").glob("*.py"), *(ROOT / "src" / "outbox").glob("*.py")]
    assert any("WHERE run = ?" in path.read_text(encoding="utf-8") for path in modules)
    assert [path.name for path in modules if re.search(r"\?\d", path.read_text(encoding="utf-8"))] == []


async def test_a_newer_version_that_stands_in_the_log_only_is_refused(tmp_path: Path) -> None:
    """The main file still says the old one: a newer headgate brought it up to date and has it open."""
    path = tmp_path / "s.db"
    await made_by(1, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute("PRAGMA wal_autocheckpoint = 0")
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
        store = SqliteStore(path, durability=Durability.PROCESS)
        with pytest.raises(SchemaMismatch, match="upgrade headgate"):
            await store.probe()
        await store.aclose()
        assert newer.execute("PRAGMA user_version").fetchone()[0] == VERSION + 1


async def test_what_was_learned_and_is_damaged_was_never_learned(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = SqliteStore(path, durability=Durability.PROCESS)
    handle = await store.open_run("run", {})
    await handle.commit(Batch(learned=b'{"x":1}'))
    await store.aclose()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE learned SET data = ?", (b'{"x":2}',))
    store = SqliteStore(path, durability=Durability.PROCESS)
    assert (await store.open_run("run", {})).learned is None
    await store.aclose()


async def test_what_was_learned_counts_for_the_run_first_and_for_others_after(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", durability=Durability.PROCESS)
    one, two = await store.open_run("one", {}), await store.open_run("two", {})
    await one.commit(Batch(learned=b"1"))
    await two.commit(Batch(learned=b"2"))
    await one.commit(Batch(learned=b"11"))
    assert (await store.open_run("two", {})).learned == b"2"
    assert (await store.open_run("three", {})).learned == b"11", "the latest of all"
    await store.aclose()
