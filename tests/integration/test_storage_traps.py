"""Traps of storage, on each kind of store that keeps results on this machine: what others got wrong."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from headgate.errors import ConfigError, FencedOut, ResultExpired
from headgate.outbox import Answer, Item, MemoryDeliveries, SqliteDeliveries
from headgate.storage import Batch, CellRecord, CellStatus, FileStore, MemoryStore, RowRecord, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headgate.storage import RunStore

COLUMNS = {"a": "1"}
HOUR_S = 3600.0


class Clock:
    """Wall-clock seconds, in the hands of a test."""

    now = 1.7e9

    def __call__(self) -> float:
        return self.now


def memory(place: Path, clock: Callable[[], float] = time.time, retention_s: float = 0.0) -> RunStore:
    return MemoryStore(clock=clock, retention_s=retention_s)


def sqlite(place: Path, clock: Callable[[], float] = time.time, retention_s: float = 0.0) -> RunStore:
    return SqliteStore(place / "s.db", clock=clock, retention_s=retention_s)


def files(place: Path, clock: Callable[[], float] = time.time, retention_s: float = 0.0) -> RunStore:
    return FileStore(place / "s", clock=clock, retention_s=retention_s)


def everything(place: Path) -> set[Path]:
    return set(place.rglob("*"))


class Make(Protocol):
    """Opens a store."""

    def __call__(self, place: Path, clock: Callable[[], float] = ..., retention_s: float = ...) -> RunStore: ...


every = pytest.mark.parametrize("make", [memory, sqlite, files])
on_disk = pytest.mark.parametrize("make", [sqlite, files])


def answer(payload: bytes = b"1") -> Batch:
    return Batch(rows=(RowRecord(0, "id0", b"digest", b"{}"),), cells=(CellRecord(0, "a", CellStatus.DONE, payload),))


@every
async def test_t48_eviction_of_the_living(make: Make, tmp_path: Path) -> None:
    """T48: staleness counted from creation, and long jobs were evicted while running. Here age begins at the end."""
    clock = Clock()
    store = make(tmp_path, clock)
    handle = await store.open_run("long", COLUMNS)
    await handle.commit(answer())
    clock.now += 100 * HOUR_S
    assert (await store.sweep(keep_s=HOUR_S)).runs == ()
    await handle.finish("completed")
    clock.now += 0.9 * HOUR_S
    assert (await store.sweep(keep_s=HOUR_S)).runs == (), "a long run that has just ended"
    assert len(list(store.read_rows("long"))) == 1
    clock.now += 0.2 * HOUR_S
    assert (await store.sweep(keep_s=HOUR_S)).runs == ("long",)
    with pytest.raises(ResultExpired):
        store.read_info("long")
    await store.aclose()


@on_disk
async def test_t44_newest_by_mtime(make: Make, tmp_path: Path) -> None:
    """T44: the newest file won, and that was a stale late write. Here the journal says which one counts."""
    large = {which: b'"%s"' % (which * 100_000) for which in (b"o", b"n")}
    store, late_store = make(tmp_path), make(tmp_path)
    late = await late_store.open_run("run", COLUMNS)
    await late.commit(Batch(rows=answer().rows))
    handle = await store.open_run("run", COLUMNS)
    await handle.commit(answer(large[b"n"]))
    before = everything(tmp_path)
    with pytest.raises(FencedOut):
        await late.commit(answer(large[b"o"]))
    written = [path for path in everything(tmp_path) - before if path.is_file() and path.stat().st_size > 90_000]
    assert written, "the late write has left a file, newer than the one that counts"
    for path in everything(tmp_path):
        then = time.time() + (HOUR_S if path in written else -HOUR_S)
        os.utime(path, (then, then))
    for reader in (store, make(tmp_path)):
        assert [cell.payload for row in reader.read_rows("run") for cell in row.cells] == [large[b"n"]]
    await store.aclose()
    await late_store.aclose()


@every
@pytest.mark.parametrize("durable", [False, True])
async def test_a_run_whose_receiver_was_not_told_yet_is_not_swept(make: Make, durable: bool, tmp_path: Path) -> None:
    """The body of a completion may say where results are to be had: they must be there until it was delivered."""
    store = make(tmp_path)
    deliveries = SqliteDeliveries(tmp_path / "outbox.db") if durable else MemoryDeliveries()
    for run in ("told", "to be told"):
        handle = await store.open_run(run, COLUMNS)
        await handle.commit(answer())
        await handle.finish("completed")
        for key in "ab":
            assert await deliveries.add(Item(f"{run}/{key}", "north", 0.0, None, run), b"")
    assert await deliveries.add(Item("no run", "north", 0.0), b"")
    await deliveries.end([("told/a", Answer.ACK, ""), ("told/b", Answer.GONE, ""), ("to be told/a", Answer.ACK, "")])
    assert (await store.sweep(keep_s=0.0, spare=await deliveries.runs())).runs == ("told",)
    await deliveries.end([("to be told/b", Answer.REJECTED, "")])
    assert (await store.sweep(keep_s=0.0, spare=await deliveries.runs())).runs == ("to be told",)
    await deliveries.aclose()
    await store.aclose()


@pytest.mark.parametrize("make", [sqlite, files])
async def test_a_retention_binds_the_object_that_was_told_and_no_other(make: Make, tmp_path: Path) -> None:
    """Two with one place: the one that was told refuses to keep less, the other one goes by its own keep_s."""
    told, other = make(tmp_path, retention_s=3600.0), make(tmp_path)
    handle = await told.open_run("tickets", {})
    await handle.finish("completed")
    await handle.aclose()
    with pytest.raises(ConfigError, match="retention_s"):
        await told.sweep(keep_s=0.0)
    assert (await other.sweep(keep_s=0.0)).runs == ("tickets",)
    for store in (told, other):
        await store.aclose()


@every
def test_a_retention_that_cannot_be_meant_is_refused(make: Make, tmp_path: Path) -> None:
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="thirty days"):
            make(tmp_path, retention_s=wrong)
