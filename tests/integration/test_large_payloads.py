"""Payloads that are files of their own: damaged ones are named, older generations are used, leftovers go."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from anyio import from_thread

from headgate.errors import FencedOut, ResultCorrupt, ResultExpired
from headgate.storage import Batch, CellRecord, CellStatus, FileStore, RowRecord, SqliteStore
from headgate.storage.payload_files import PayloadFiles
from headgate.storage.sqlite_schema import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from headgate.storage import RunHandle, StoredRow

LARGE = b'"' + b"x" * 70_000 + b'"'
ROW = RowRecord(0, "id0", b"digest", b"{}")
DONE = Batch(rows=(ROW,), cells=(CellRecord(0, "a", CellStatus.DONE, LARGE),))
COLUMNS = {"a": "1"}

Store = SqliteStore | FileStore
both = pytest.mark.parametrize("kind", [SqliteStore, FileStore])


def payload_files(place: Path) -> list[Path]:
    return sorted(file for file in place.rglob("*") if file.is_file() and file.read_bytes().startswith(LARGE[:9]))


async def begun(store: Store) -> RunHandle:
    handle = await store.open_run("run", COLUMNS)
    await handle.commit(DONE)
    return handle


def read(store: Store) -> list[bytes | None]:
    return [cell.payload for row in store.read_rows("run") for cell in row.cells]


@both
async def test_up_to_64_kib_stand_in_the_journal_and_more_in_a_file(kind: type[Store], tmp_path: Path) -> None:
    store = kind(tmp_path / "store")
    handle = await store.open_run("run", COLUMNS)
    edge = b'"' + b"x" * (65_536 - 2) + b'"'
    await handle.commit(Batch(rows=(ROW,), cells=(CellRecord(0, "a", CellStatus.DONE, edge),)))
    assert payload_files(tmp_path) == []
    second = RowRecord(1, "id1", b"digest", b"{}")
    await handle.commit(Batch(rows=(second,), cells=(CellRecord(1, "a", CellStatus.DONE, edge + b" "),)))
    (file,) = payload_files(tmp_path)
    assert file.read_bytes() == edge + b" "
    assert read(store) == [edge, edge + b" "]
    await store.aclose()


@pytest.mark.parametrize("left", [None, b"", LARGE[:-1], LARGE[:-1] + b"y"], ids=["gone", "empty", "short", "flipped"])
@both
async def test_a_damaged_file_is_named_and_nothing_else_is_lost(
    kind: type[Store], left: bytes | None, tmp_path: Path
) -> None:
    """D2: never silently wrong data."""
    store = kind(tmp_path / "store")
    handle = await begun(store)
    (file,) = payload_files(tmp_path)
    file.unlink()
    if left is not None:
        file.write_bytes(left)
    with pytest.raises(ResultCorrupt, match=file.name):
        read(store)
    with pytest.raises(ResultCorrupt, match="column 'a'"):
        await handle.load(0, 1)
    await handle.commit(Batch(rows=(RowRecord(1, "id1", b"digest", b"{}"),)))
    assert await handle.find(["id1"]) == {"id1": 1}
    assert len(await handle.load(1, 2)) == 1
    await store.aclose()


@both
async def test_t45_a_corrupt_generation_gives_way_to_an_older_one(kind: type[Store], tmp_path: Path) -> None:
    """T45: a corrupt newest generation was "temporarily unavailable" for ever, the good older one never tried."""
    store = kind(tmp_path / "store")
    handle = await begun(store)
    (oldest,) = payload_files(tmp_path)
    await handle.commit(DONE)  # the same again: another generation
    (newest,) = set(payload_files(tmp_path)) - {oldest}
    newest.write_bytes(b'"' + b"y" * 70_000 + b'"')
    assert read(store) == [LARGE]
    await store.aclose()
    again = kind(tmp_path / "store")
    assert [cell.payload for row in await (await again.open_run("run", COLUMNS)).load(0, 9) for cell in row.cells] == [
        LARGE
    ]
    oldest.unlink()
    with pytest.raises(ResultCorrupt, match=newest.name):
        read(again)
    await again.aclose()


@both
async def test_what_nobody_refers_to_goes_once_its_epoch_is_over(kind: type[Store], tmp_path: Path) -> None:
    """A file that was written and never committed may still be committed, as long as its epoch lasts; not after."""
    store, other = kind(tmp_path / "store"), kind(tmp_path / "store")
    handle = await begun(store)
    (kept,) = payload_files(tmp_path)
    orphan = kept.with_name(kept.name[:-16] + "0" * 16)
    orphan.write_bytes(LARGE)
    stranger = kept.with_name("notes.txt")
    stranger.write_bytes(LARGE)
    await other.sweep(keep_s=0.0)
    assert set(payload_files(tmp_path)) == {kept, orphan, stranger}
    late = await other.open_run("run", COLUMNS)
    with pytest.raises(FencedOut):
        await handle.commit(Batch(cells=DONE.cells))
    swept = await store.sweep(keep_s=0.0)
    assert set(payload_files(tmp_path)) == {kept, stranger}
    assert swept.leftovers >= 2, "the orphan, and what the one who was fenced out had written"
    assert read(store) == [LARGE]
    await late.finish("completed")
    assert (await store.sweep(keep_s=0.0)).runs == ("run",)
    assert payload_files(tmp_path) == [stranger]
    await store.aclose()
    await other.aclose()


@both
async def test_a_sweep_in_the_middle_of_reading_is_no_damage(
    kind: type[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows were there, their files are not any more: that is ResultExpired."""
    store, other = kind(tmp_path / "store"), kind(tmp_path / "store")
    handle = await begun(store)
    await handle.finish("completed")
    move_in = PayloadFiles.move_in

    def sweep_first(self: PayloadFiles, rows: list[StoredRow], run: str) -> list[StoredRow]:
        from_thread.run(partial(other.sweep, keep_s=0.0))
        return move_in(self, rows, run)

    monkeypatch.setattr(PayloadFiles, "move_in", sweep_first)
    with pytest.raises(ResultExpired):
        await handle.load(0, 9)
    await store.aclose()
    await other.aclose()


async def test_a_file_of_the_version_before_gets_large_payloads_too(tmp_path: Path) -> None:
    """The version says that there may be references: a headgate that knows none must not take them for payloads."""
    path = tmp_path / "store"
    store = SqliteStore(path)
    await store.probe()
    await store.aclose()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE generation")  # came with the same version
        connection.execute("DROP TABLE register")  # came later
        connection.execute("PRAGMA user_version = 2")
    store = SqliteStore(path)
    await begun(store)
    assert read(store) == [LARGE]
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
