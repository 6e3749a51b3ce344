"""Whoever sleeps in the middle of opening a run, while the names that it wants are packed away, wins nothing.

Packing a log makes names free again. What is shown here is why that harms nobody: see the theory in
:mod:`headgate.storage.run_log`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headgate.errors import FencedOut

from .crashing_disk import CrashingDisk
from .test_file_crashes import RUN, Writer, expected, stored, sweep_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class SleepyDisk(CrashingDisk):
    """Does ``meanwhile`` at the moment when somebody links to a name that ends with ``asleep_at``, once."""

    asleep_at = ""
    meanwhile: Callable[[], None] | None = None

    def link(self, path: Path, name: Path) -> None:
        if self.meanwhile is not None and name.as_posix().endswith(self.asleep_at):
            act, self.meanwhile = self.meanwhile, None
            act()
            assert name.name not in self.names(name.parent), "the name is free: that is what this is about"
        super().link(path, name)


@pytest.mark.parametrize("asleep_at", ["segments/00000001/00000002", "segments/00000002/00000000"])
def test_who_opens_in_its_sleep_wins_nothing(asleep_at: str) -> None:
    """D4, D2: asleep before its seal, or before its own first entry; the others write, open, and pack meanwhile."""
    disk = SleepyDisk()
    first, second, third, sleeper = (Writer(disk) for _ in range(4))
    first.open()
    first.commit([0])

    def meanwhile() -> None:
        if asleep_at.endswith("2"):
            first.commit([1])
        else:
            second.open()
            second.commit([1])
        third.open()
        third.commit([2])
        assert sweep_all(disk) == ()

    disk.asleep_at, disk.meanwhile = asleep_at, meanwhile
    sleeper.open()
    assert disk.meanwhile is None, "it did sleep there"
    assert stored(disk) == [expected(row) for row in range(3)]
    for other in (first, third):
        with pytest.raises(FencedOut):
            other.commit([3])
    sleeper.commit([3])
    sweep_all(disk)
    assert stored(disk) == [expected(row) for row in range(4)]


def test_a_writer_that_sleeps_finds_the_seal_where_its_commit_would_be() -> None:
    """D4, T49: however much was packed since, the one name that it would take is the one that stays."""
    disk = CrashingDisk()
    sleeper = Writer(disk)
    sleeper.open()
    sleeper.commit([0])
    for row in (1, 2, 3):
        heir = Writer(disk)
        heir.open()
        heir.commit([row])
        sweep_all(disk)
        with pytest.raises(FencedOut):
            sleeper.finish()
        with pytest.raises(FencedOut):
            sleeper.commit([row + 1])
    assert stored(disk, RUN) == [expected(row) for row in range(4)]
