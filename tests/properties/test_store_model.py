"""Our stores under the public suite: one thing is promised, and one thing tests it (D1 to D6, D8, D9; T42 to T46)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headgate.storage import Durability, FileStore, MemoryStore, RunStore, SqliteStore
from headgate.storage.disk import LocalDisk
from headgate.testing.store import MAX_PAYLOAD, StoreSuite

if TYPE_CHECKING:
    from pathlib import Path


class TestMemoryStore(StoreSuite):
    openers = 1
    durable = False

    def open_store(self, place: Path) -> RunStore:
        return MemoryStore(max_payload=MAX_PAYLOAD)

    def open_retaining(self, place: Path, retention_s: float) -> RunStore:
        return MemoryStore(retention_s=retention_s)


class TestSqliteStore(StoreSuite):
    share = 1 / 3

    def open_store(self, place: Path) -> RunStore:
        return SqliteStore(place / "store.db", durability=Durability.PROCESS, max_payload=MAX_PAYLOAD)

    def open_retaining(self, place: Path, retention_s: float) -> RunStore:
        return SqliteStore(place / "store.db", durability=Durability.PROCESS, retention_s=retention_s)


class TestSqliteStoreOnTrio(TestSqliteStore):
    backend = "trio"
    share = 1 / 6


class TestFileStore(StoreSuite):
    share = 1 / 6

    def open_store(self, place: Path) -> RunStore:
        return FileStore(place / "store", max_payload=MAX_PAYLOAD)

    def open_retaining(self, place: Path, retention_s: float) -> RunStore:
        return FileStore(place / "store", retention_s=retention_s)


class Unsynced(LocalDisk):
    """Nothing is made to last: the suite loses processes, and no power."""

    def sync(self, file: int) -> None:
        pass

    def sync_dir(self, path: Path) -> None:
        pass


class TestFileStoreThatPacksOften(StoreSuite):
    share = 1 / 3

    def open_store(self, place: Path) -> RunStore:
        return FileStore(place / "store", max_payload=MAX_PAYLOAD, pack_after=2, disk=Unsynced())
