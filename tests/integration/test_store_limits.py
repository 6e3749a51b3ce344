"""``max_bytes`` of each store: a clear error before the disk is full, nothing by half, then it goes on (D9)."""

from __future__ import annotations

import json
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.errors import StoreFull
from headgate.storage import Batch, CellRecord, CellStatus, FileStore, PostgresStore, RowRecord, SqliteStore
from tests.integration.postgres_server import shared_server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from headgate.storage import RunHandle, RunStore

BOUND = 2_000_000
VALUE = 20_000


class Place:
    """Where stores may hold BOUND bytes. ``size`` is what is there, ``shrink`` gives back what is free."""

    def __init__(
        self, open_store: Callable[[], RunStore], size: Callable[[], int], shrink: Callable[[], object]
    ) -> None:
        self.open_store = open_store
        self.size = size
        self.shrink = shrink


@contextmanager
def postgres() -> Generator[Place]:
    server = shared_server()
    with server.schema() as schema:

        def size() -> int:
            tables = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c WHERE relkind = 'r'"
            found: int = server.execute(f"{tables} AND relnamespace = '{schema}'::regnamespace")[0][0]
            return found

        def shrink() -> None:
            for (table,) in server.execute(f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'"):
                server.execute(f"VACUUM FULL {schema}.{table}")

        yield Place(lambda: PostgresStore(server.dsn, schema=schema, max_bytes=BOUND), size, shrink)


def on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


@pytest.fixture(params=["sqlite", "file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Place]:
    match request.param:
        case "sqlite":
            path = tmp_path / "s.db"
            yield Place(lambda: SqliteStore(path, max_bytes=BOUND), lambda: path.stat().st_size, lambda: None)
        case "file":
            root = tmp_path / "store"
            yield Place(lambda: FileStore(root, max_bytes=BOUND, pack_after=8), lambda: on_disk(root), lambda: None)
        case _:
            with postgres() as found:
                yield found


def row(position: int, size: int = VALUE) -> Batch:
    """A row with a value that nobody can compress."""
    value = json.dumps(Random(position).randbytes(size // 2).hex()).encode()
    return Batch(
        rows=(RowRecord(position, f"id{position}", b"digest", b"{}"),),
        cells=(CellRecord(position, "a", CellStatus.DONE, value),),
    )


async def fill(handle: RunHandle, start: int = 0, size: int = VALUE) -> int:
    """Commit rows until there is no room; return the position of the one that was refused."""
    position = start

    async def commit_for_ever() -> None:
        nonlocal position
        while True:
            await handle.commit(row(position, size))
            position += 1

    with pytest.raises(StoreFull, match="what was acknowledged is safe") as caught:
        await commit_for_ever()
    assert caught.value.retryable
    return position


def stored(store: RunStore, run: str) -> list[int]:
    rows = list(store.read_rows(run))
    assert all(found.cells == row(found.record.row).cells for found in rows)
    return [found.record.row for found in rows]


async def test_d9_a_bound_is_kept_and_with_room_it_goes_on(place: Place) -> None:
    store = place.open_store()
    old = await store.open_run("old", {"a": "1"})
    for position in range(40):
        await old.commit(row(position))
    await old.finish("completed")
    handle = await store.open_run("new", {"a": "1"})
    refused = await fill(handle)
    assert 10 < refused < 100
    assert stored(store, "new") == list(range(refused)), "all that was acknowledged, and nothing else"
    with pytest.raises(StoreFull):
        await handle.commit(row(refused))
    assert place.size() <= BOUND * 1.1

    assert (await store.sweep(keep_s=0.0)).runs == ("old",)
    place.shrink()
    more = await fill(handle, refused)
    assert more >= refused + 30, "the room of the old run"
    assert stored(store, "new") == list(range(more))
    assert place.size() <= BOUND * 1.1
    await store.aclose()


async def test_t32_what_finds_no_room_takes_no_other_along(place: Place) -> None:
    store = place.open_store()
    handle = await store.open_run("run", {"a": "1"})
    refused: list[int] = []

    async def commit(position: int) -> None:
        try:
            await handle.commit(row(position, 3 * BOUND if position == 3 else 100))
        except StoreFull:
            refused.append(position)

    async with anyio.create_task_group() as tasks:
        for position in range(10):
            tasks.start_soon(commit, position)
    assert refused == [3]
    assert [found.record.row for found in store.read_rows("run")] == [*range(3), *range(4, 10)]
    await store.aclose()


async def test_large_payloads_count(place: Place) -> None:
    """Values that are files of their own are bounded like the others."""
    store = place.open_store()
    handle = await store.open_run("run", {"a": "1"})
    refused = await fill(handle, size=200_000)
    assert 3 <= refused <= 20
    assert len(list(store.read_rows("run"))) == refused
    await store.aclose()


async def test_two_processes_worth_of_writers_keep_it_between_them(tmp_path: Path) -> None:
    """Each measures what the other has written too."""
    root = tmp_path / "store"
    stores = [FileStore(root, max_bytes=BOUND) for _ in range(2)]
    handles = [await store.open_run(f"run {number}", {"a": "1"}) for number, store in enumerate(stores)]
    for position in range(30):
        for handle in handles:
            await handle.commit(row(position))
    refused = [await fill(handle, 30) for handle in handles]
    assert sum(refused) > 60, "there was room left, for the first at least"
    assert on_disk(root) <= BOUND + len(stores) * 2 * VALUE, "but for what is written at the same time"
    for store in stores:
        await store.aclose()
