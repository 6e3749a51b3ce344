"""The registers of our stores under the public suite: one thing is promised, and one thing tests it (R1, T46, T61)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headgate.storage import Durability, MemoryStore, RunStore, SqliteStore
from headgate.testing.store import RegisterSuite

if TYPE_CHECKING:
    from pathlib import Path


class TestMemoryRegisters(RegisterSuite):
    openers = 1
    durable = False

    def open_store(self, place: Path) -> RunStore:
        return MemoryStore()


class TestSqliteRegisters(RegisterSuite):
    share = 1 / 3

    def open_store(self, place: Path) -> RunStore:
        return SqliteStore(place / "store.db", durability=Durability.PROCESS)


class TestSqliteRegistersOnTrio(TestSqliteRegisters):
    backend = "trio"
    share = 1 / 6
