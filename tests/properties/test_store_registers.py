"""The registers of our stores under the public suite: one thing is promised, and one thing tests it (R1, T46, T61)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from headgate.errors import ResultCorrupt, StoreUnavailable
from headgate.storage import Durability, FileStore, MemoryStore, RunStore, SqliteStore
from headgate.storage.disk import LocalDisk
from headgate.storage.file_registers import KEPT, FileRegisters
from headgate.testing.store import RegisterSuite

if TYPE_CHECKING:
    from collections.abc import Callable
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


class TestFileRegisters(RegisterSuite):
    share = 1 / 3

    def open_store(self, place: Path) -> RunStore:
        return FileStore(place / "store")


def test_who_was_paused_for_long_does_not_take_a_name_that_was_free_again(tmp_path: Path) -> None:
    """R1: between looking and linking many others wrote, and the version that it wants was removed."""

    class PausingDisk(LocalDisk):
        def link(self, path: Path, name: Path) -> None:
            if self.meanwhile:
                self.meanwhile.pop()()
            super().link(path, name)

        meanwhile: ClassVar[list[Callable[[], None]]] = []

    quick = FileRegisters(LocalDisk(), tmp_path / "registers", below=tmp_path)
    slow = FileRegisters(PausingDisk(), tmp_path / "registers", below=tmp_path)
    for version in range(5):
        assert quick.write("r", b"%d" % version, version)

    def many() -> None:
        for version in range(5, 5 + 3 * KEPT):
            assert quick.write("r", b"%d" % version, version)

    PausingDisk.meanwhile.append(many)
    with pytest.raises(StoreUnavailable, match="overtaken"):
        slow.write("r", b"stale", 5)
    assert quick.read("r") == (5 + 3 * KEPT, b"%d" % (4 + 3 * KEPT))
    assert quick.write("r", b"next", 5 + 3 * KEPT)
    files = list((tmp_path / "registers").rglob("0*"))
    assert len(files) == KEPT
    assert not slow.write("r", b"stale", 5)


def test_a_damaged_version_is_named(tmp_path: Path) -> None:
    registers = FileRegisters(LocalDisk(), tmp_path / "registers", below=tmp_path)
    assert registers.write("r", b"content", 0)
    (file,) = (tmp_path / "registers").rglob("0*")
    file.write_bytes(b"spoilt" + file.read_bytes())
    with pytest.raises(ResultCorrupt, match="checksum"):
        registers.read("r")
