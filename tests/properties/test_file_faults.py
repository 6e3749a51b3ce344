"""The file store on a disk where one system call fails: a clear error, nothing acknowledged is lost, and it goes on."""

from __future__ import annotations

import errno
import os
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from headgate.errors import StoreError, StoreFull, StoreUnavailable, StoreUnsupported
from headgate.storage import FileStore
from headgate.storage.disk import LocalDisk

from .crashing_disk import CrashingDisk
from .faulty_disk import FaultyDisk
from .test_file_crashes import Writer, expected, stored, sweep_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
TRIES = 3
ROWS = range(5)
ERRORS = [errno.ENOSPC, errno.EIO, errno.EINTR]
WANTED = {
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.EIO: StoreUnavailable,
    errno.EINTR: StoreUnavailable,
    errno.ESTALE: StoreUnavailable,
    errno.EROFS: StoreUnsupported,
}


def persist(act: Callable[[], object], error: int) -> int:
    """Do it until it works; return how often it did not."""
    for attempt in range(TRIES):
        try:
            act()
        except WANTED[error]:
            continue
        return attempt
    raise AssertionError(f"still refused after {TRIES} tries")


def play(disk: Any, error: int) -> int:
    """Commit rows one by one and take the run over in between, each step as often as it needs; return the failures."""
    failures = 0
    for half in (ROWS[:3], ROWS[3:]):
        writer = Writer(disk)
        failures += persist(writer.open, error)
        for row in half:
            failures += persist(partial(writer.commit, [row]), error)
    failures += persist(writer.finish, error)
    return failures


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done and not said"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_any_one_call_fails(error: int, done: bool) -> None:
    """D9, D2: for every k, with the k-th call failing; then the power fails too.

    Each k with one of the errors by default, with all of them with the deep profile.
    """
    whole = FaultyDisk(CrashingDisk(), error)
    play(whole, error)
    told = 0
    calls = range(1, whole.operations + 1) if THOROUGH else range(1 + ERRORS.index(error), whole.operations + 1, 3)
    for fails_at in calls:
        disk = FaultyDisk(CrashingDisk(), error, fails_at=fails_at, done=done)
        told += play(disk, error)
        disk.inner.restart(Random(fails_at))
        assert stored(disk.inner) == [expected(row) for row in ROWS], f"call {fails_at}"
    assert told > len(calls) // 2, "most failures are told of"


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done and not said"])
def test_any_one_call_of_a_sweep_fails(done: bool) -> None:
    """D9: what goes on is whole, and the next sweep does what this one has not."""
    ready = FaultyDisk(CrashingDisk(), errno.EIO)
    play(ready, errno.EIO)
    before = ready.operations
    sweep_all(ready)
    for fails_at in range(before + 1, ready.operations + 1):
        disk = FaultyDisk(CrashingDisk(), errno.EIO, done=done)
        play(disk, errno.EIO)
        disk.fails_at = fails_at
        try:
            sweep_all(disk)
        except StoreUnavailable:
            sweep_all(disk)
        with pytest.raises(StoreError, match="swept"):
            stored(disk.inner)


def files_in(place: Path) -> list[Path]:
    return [file for file in place.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("operation", "error", "kind", "named"),
    [
        ("link", errno.EPERM, StoreUnsupported, "hard link"),
        ("link", errno.EOPNOTSUPP, StoreUnsupported, "hard link"),
        ("rename", errno.EXDEV, StoreUnsupported, "rename a file"),
        ("sync_dir", errno.EINVAL, StoreUnsupported, "Invalid argument"),
        ("sync", errno.EIO, StoreUnavailable, "make, write and sync a file"),
        ("create", errno.EROFS, StoreUnsupported, "must be writable"),
        ("make_dir", errno.EACCES, StoreUnsupported, "must be writable"),
        ("write", errno.ENOSPC, StoreFull, "make, write and sync a file"),
    ],
    ids=str,
)
async def test_the_probe_names_what_is_missing(
    operation: str, error: int, kind: type[StoreError], named: str, tmp_path: Path
) -> None:
    """D9: before anything is paid for."""
    store = FileStore(tmp_path / "store", disk=FaultyDisk(LocalDisk(), error, fails=operation))
    with pytest.raises(kind, match=named):
        await store.probe()
    await store.aclose()
    assert files_in(tmp_path) == [], "it leaves nothing behind"


async def test_a_name_that_can_be_taken_twice_is_found_out(tmp_path: Path) -> None:
    """D4: where a link replaces what is there, nobody would be fenced out."""

    class Replacing(LocalDisk):
        def link(self, path: Path, name: Path) -> None:
            name.unlink(missing_ok=True)
            super().link(path, name)

    store = FileStore(tmp_path / "store", disk=Replacing())
    with pytest.raises(StoreUnsupported, match="taken twice"):
        await store.probe()
    await store.aclose()
