"""Files that are not ours, disks that are full, files that are damaged: a clear error, and nothing lost (D9)."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.errors import (
    PayloadTooLarge,
    ResultCorrupt,
    SchemaMismatch,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnsupported,
    UnknownRun,
)
from headgate.storage import Batch, CellRecord, CellStatus, Durability, RowRecord, SqliteStore, open_store
from headgate.storage.references import INLINE_BYTES
from headgate.storage.sqlite_schema import APPLICATION_ID, VERSION
from tests.integration.warm_children import run_warm

if TYPE_CHECKING:
    from collections.abc import Iterator

NEIGHBOUR = Path(__file__).with_name("sqlite_neighbour.py")


def row(position: int, size: int = 2) -> Batch:
    record = RowRecord(position, f"id{position}", b"digest", b" " * size)
    return Batch(rows=(record,), cells=(CellRecord(position, "a", CellStatus.DONE, b'"kept"'),))


def neighbour(*arguments: str | Path) -> list[str]:
    command = [sys.executable, str(NEIGHBOUR), *map(str, arguments)]
    done = run_warm(command, timeout=60, check=True)
    return done.stdout.splitlines()


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def database(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


async def filled(path: Path, rows: int = 3) -> None:
    store = SqliteStore(path, durability=Durability.PROCESS)
    handle = await store.open_run("run", {"a": "1"})
    for position in range(rows):
        await handle.commit(row(position))
    await store.aclose()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("text", "not a database"),
        ("cut", "not a headgate store"),
        ("other", "not a headgate store"),
        ("wal", "not a headgate store"),
        ("newer", "upgrade headgate"),
        ("older", "older headgate"),
    ],
)
async def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, what: str, said: str) -> None:
    path = tmp_path / "s.db"
    match what:
        case "text":
            path.write_text("name,answer\n" * 100)
        case "cut":
            await filled(path)
            path.write_bytes(path.read_bytes()[:60])
        case "other":
            database(path, "CREATE TABLE run (id INTEGER)")
        case "wal":
            # With a log that nobody has emptied yet: opening it for writing would do so.
            origin = sqlite3.connect(tmp_path / "origin", isolation_level=None)
            origin.execute("PRAGMA journal_mode = WAL")
            origin.execute("CREATE TABLE run (id INTEGER)")
            origin.execute("PRAGMA wal_checkpoint")
            origin.execute("INSERT INTO run VALUES (1)")
            shutil.copy(tmp_path / "origin", path)
            shutil.copy(tmp_path / "origin-wal", tmp_path / "s.db-wal")
            origin.close()
        case _:
            version = VERSION + 1 if what == "newer" else 0
            database(path, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {version}")
    before = files(tmp_path)
    store = open_store(path)
    with pytest.raises(SchemaMismatch, match=said):
        await store.probe()
    with pytest.raises(SchemaMismatch, match=said):
        await store.open_run("run", {})
    with pytest.raises(SchemaMismatch, match=said):
        store.read_info("run")
    await store.aclose()
    assert files(tmp_path) == before


def test_reading_what_is_not_there_creates_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    with pytest.raises(UnknownRun):
        store.read_rows("run")
    with pytest.raises(UnknownRun):
        store.read_info("run")
    assert files(tmp_path) == {}


async def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("a store #1?.db")
    await store.probe()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await store.open_run("run", {})
    assert store.read_info("run").epoch == 1
    await store.aclose()
    assert sorted(files(tmp_path / "elsewhere")) == []


async def test_an_unknown_run_is_unknown(tmp_path: Path) -> None:
    await filled(tmp_path / "s.db")
    with pytest.raises(UnknownRun, match="'other'"):
        SqliteStore(tmp_path / "s.db").read_rows("other")


async def test_d9_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """D9: the file may not grow any more. The commit is refused as a whole and works once there is room."""
    path = tmp_path / "s.db"
    store = SqliteStore(path, max_bytes=400_000)
    handle = await store.open_run("run", {"a": "1"})
    acknowledged = 0

    async def commit_for_ever() -> None:
        nonlocal acknowledged
        while True:
            await handle.commit(row(acknowledged, 20_000))
            acknowledged += 1

    with pytest.raises(StoreFull, match="what was acknowledged is safe") as caught:
        await commit_for_ever()
    assert caught.value.retryable
    assert acknowledged > 10
    stored = list(store.read_rows("run"))
    assert [found.record.row for found in stored] == list(range(acknowledged))
    assert all(len(found.cells) == 1 for found in stored)
    await store.aclose()

    store = SqliteStore(path)
    handle = await store.open_run("run", {"a": "1"})
    await handle.commit(row(acknowledged, 20_000))
    assert store.read_info("run").rows == acknowledged + 1
    await store.aclose()


async def test_one_commit_that_finds_no_room_takes_no_other_along(tmp_path: Path) -> None:
    """T32: SQLite gives up the whole transaction then, with all the commits that had gathered in it."""
    store = SqliteStore(tmp_path / "s.db", max_bytes=400_000)
    handle = await store.open_run("run", {"a": "1"})
    refused: list[int] = []

    async def commit(position: int) -> None:
        try:
            await handle.commit(row(position, 1_000_000 if position == 3 else 100))
        except StoreFull:
            refused.append(position)

    for start in (0, 10, 20):
        async with anyio.create_task_group() as tasks:
            for position in range(start, start + 10):
                tasks.start_soon(commit, position)
    assert refused == [3]
    assert [found.record.row for found in store.read_rows("run")] == [*range(3), *range(4, 30)]
    await store.aclose()


def test_d9_a_write_that_the_system_refuses(tmp_path: Path) -> None:
    """D9: the write itself fails, as on a broken disk or over a quota. What was acknowledged is there."""
    *acknowledged, error = neighbour("fill", tmp_path / "s.db", "400000")
    assert error in {"StoreFull", "StoreUnavailable"}
    assert len(acknowledged) > 5
    rows = [str(found.record.row) for found in SqliteStore(tmp_path / "s.db").read_rows("run")]
    assert rows[: len(acknowledged)] == acknowledged
    assert len(rows) <= len(acknowledged) + 1
    connection = sqlite3.connect(tmp_path / "s.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def close_off(place: Path, path: Path) -> None:
    path.chmod(0o444)
    place.chmod(0o555)


@pytest.fixture
def read_only_place() -> Iterator[Path]:
    """A directory that even another user can look into, and nobody but root write to."""
    place = Path(tempfile.mkdtemp())
    yield place
    place.chmod(0o700)
    shutil.rmtree(place)


async def test_d9_a_read_only_disk_can_be_read_and_says_what_is_missing(read_only_place: Path) -> None:
    """D9: reading works without a single file being written; writing is refused with the operation that is lacking."""
    path = read_only_place / "s.db"
    await filled(path)
    close_off(read_only_place, path)
    rows, error, opening = neighbour("read_only", path)
    assert rows == "3"
    assert opening.startswith(StoreUnsupported.__name__)
    assert "no permission" in opening
    assert error.startswith(StoreUnsupported.__name__)
    assert "must be writable" in error
    assert list(files(read_only_place)) == ["s.db"]


OF_A_CELL = (
    *("reason = 'other'", "message = x''", "attempts = 9", "http_status = 500", "finished_at = 7.5", "epoch = 9"),
    *("input_tokens = 99", "output_tokens = 'many'", "checksum = 'none'", "checksum = checksum & 4294967295"),
    "payload = CAST(payload AS TEXT)",
    # As a damaged index shows it: the whole of another row's.
    "(payload, checksum) = (SELECT payload, checksum FROM cell WHERE position = 2)",
)
OF_A_ROW = (
    *("row_id = 'other'", "digest = x'00'", "data = CAST(data AS TEXT)"),
    "(digest, data, checksum) = (SELECT digest, data, checksum FROM input_row WHERE position = 2)",
)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE cell SET payload = '\"lost\"' WHERE position = 1",
        "UPDATE input_row SET data = 'x' WHERE position = 1",
        *(f"UPDATE cell SET {what} WHERE position = 1" for what in OF_A_CELL),
        *(f"UPDATE input_row SET {what} WHERE position = 1" for what in OF_A_ROW),
    ],
)
async def test_t45_a_damaged_value_is_named_and_final(tmp_path: Path, damage: str) -> None:
    """T45: a corrupt result was "temporarily unavailable" for ever. Here it is named, and not to be retried."""
    path = tmp_path / "s.db"
    await filled(path)
    database(path, damage.replace("'\"lost\"'", "CAST('\"lost\"' AS BLOB)").replace("'x'", "CAST('x' AS BLOB)"))
    store = SqliteStore(path)
    with pytest.raises(ResultCorrupt, match=r"row 1 .*checksum") as caught:
        list(store.read_rows("run"))
    assert not caught.value.retryable
    handle = await store.open_run("run", {})
    with pytest.raises(ResultCorrupt):
        await handle.load(0, 9)
    assert [found.record.row for found in await handle.load(2, 9)] == [2]
    await store.aclose()


async def test_t45_a_repeated_commit_does_not_hide_damage(tmp_path: Path) -> None:
    """It added a file to those of a large payload, and made the checksum anew over whatever stood there."""
    store = SqliteStore(tmp_path / "s.db", durability=Durability.PROCESS)
    handle = await store.open_run("run", {"a": "1"})
    large = Batch(row(0).rows, (CellRecord(0, "a", CellStatus.DONE, b'"' + b"x" * INLINE_BYTES + b'"', attempts=1),))
    await handle.commit(large)
    database(tmp_path / "s.db", "UPDATE cell SET attempts = 77")
    await handle.commit(large)
    with pytest.raises(ResultCorrupt, match="checksum"):
        list(store.read_rows("run"))
    await store.aclose()


async def test_t45_a_damaged_file_is_named_and_final(tmp_path: Path) -> None:
    """T45: the same for the file itself."""
    path = tmp_path / "s.db"
    await filled(path, rows=40)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    store = SqliteStore(path)
    with pytest.raises(ResultCorrupt, match=r"restore it|\.recover") as caught:
        list(store.read_rows("run"))
    assert not caught.value.retryable
    with pytest.raises(ResultCorrupt):
        await store.open_run("run", {"a": "1"})
    await store.aclose()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE cell SET status = 'dome' WHERE position = 1",
        "UPDATE cell SET message = CAST(x'ff98' AS TEXT) WHERE position = 1",
    ],
)
async def test_t45_a_damaged_word_is_named_and_final(tmp_path: Path, damage: str) -> None:
    """T45: what is no status, or no text, came as an error of Python, and was nobody's."""
    path = tmp_path / "s.db"
    await filled(path)
    database(path, "PRAGMA ignore_check_constraints = ON", damage)
    store = SqliteStore(path)
    with pytest.raises(ResultCorrupt, match=r"damaged|which is none") as caught:
        list(store.read_rows("run"))
    assert not caught.value.retryable
    handle = await store.open_run("run", {})
    with pytest.raises(ResultCorrupt):
        await handle.load(0, 9)
    await handle.commit(row(7))
    await store.aclose()


async def test_t45_a_damaged_table_is_named_and_final(tmp_path: Path) -> None:
    """T45: the names of the tables are no text any more; the thread that writes lives on, and says so each time."""
    path = tmp_path / "s.db"
    await filled(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE run (", b"CREATE TABLE r\x98\xff ("))
    store = SqliteStore(path)
    with pytest.raises(ResultCorrupt, match=r"damaged|malformed"):
        store.read_rows("run")
    for _ in range(2):
        with pytest.raises(ResultCorrupt, match=r"damaged|malformed"):
            await store.open_run("run", {"a": "1"})
    await store.aclose()


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_file_that_was_taken_away_is_noticed(tmp_path: Path, replaced: bool) -> None:
    """Else commits into the deleted file would go on being acknowledged (T51)."""
    path = tmp_path / "s.db"
    store = SqliteStore(path, durability=Durability.PROCESS)
    handle = await store.open_run("run", {"a": "1"})
    await handle.commit(row(0))
    path.rename(tmp_path / "elsewhere")
    if replaced:
        path.touch()
    with pytest.raises(StoreUnavailable, match="while in use"):
        await handle.commit(row(1))
    path.unlink(missing_ok=True)
    (tmp_path / "elsewhere").rename(path)
    await handle.commit(row(1))
    assert store.read_info("run").rows == 2
    await store.aclose()


async def test_words_that_are_no_unicode_do_not_sink_a_batch(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    handle = await store.open_run("run", {"a": "1"})
    failed = CellRecord(0, "a", CellStatus.FAILED, None, reason="rejected", message="half a pair: \ud83d")
    await handle.commit(Batch(rows=row(0).rows, cells=(failed,)))
    (found,) = store.read_rows("run")
    assert found.cells[0].message == "half a pair: \\ud83d"
    await store.aclose()


async def test_a_payload_above_the_limit_is_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", max_payload=100)
    handle = await store.open_run("run", {"a": "1"})
    with pytest.raises(PayloadTooLarge, match=r"row 7 .*101 bytes"):
        await handle.commit(row(7, 101))
    await handle.commit(row(7, 100))
    await store.aclose()


async def test_after_closing_every_call_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    handle = await store.open_run("run", {"a": "1"})
    await store.aclose()
    await store.aclose()
    for call in (
        store.probe,
        lambda: store.open_run("run", {}),
        lambda: handle.commit(row(0)),
        lambda: handle.load(0, 1),
    ):
        with pytest.raises(StoreError, match="closed"):
            await call()
    assert store.read_info("run").rows == 0
