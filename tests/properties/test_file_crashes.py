"""The file store on a disk that loses power at any operation: nothing acknowledged is lost, nothing is there by half.

The writer's thread is left out: what it calls is called here in the same order, so that every operation on the disk can
be the last one.
"""

from __future__ import annotations

import ast
import os
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import FencedOut, ResultCorrupt, ResultExpired, StoreError, UnknownRun
from headgate.storage import (
    Batch,
    CellRecord,
    CellStatus,
    Durability,
    HeldRecord,
    RowRecord,
    SpentRecord,
    StoredRow,
    references,
    run_logs,
    run_sweep,
)
from headgate.storage.run_logs import RunLogs
from headgate.storage.sqlite_reads import load
from headgate.values import Usage

from .crashing_disk import ROOT, CrashingDisk, Directory, File, PowerLoss, Site

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from headgate.storage.disk import Disk
    from headgate.storage.sqlite_records import Opened

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
EVERY = 1 if THOROUGH else 2
"""Of so many operations in a row each search looks at one, with each seed at another one."""

FINGERPRINTS = {"a": "1", "b": "1"}
RUN = "tickets"


@pytest.fixture(autouse=True, scope="module")
def _small_is_large() -> Iterator[None]:
    """Every payload of an even row is a file of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "INLINE_BYTES", len(b'"answer"'))
        yield


def answer(row: int) -> bytes:
    return b'"a%d"' % row if row % 2 else b'"answer %d"' % row


def batch(row: int) -> Batch:
    """All kinds of records about one row, so that half a batch can be told from a whole one."""
    return Batch(
        rows=(RowRecord(row, f"id{row}", b"digest", b'{"n": %d}' % row),),
        cells=(CellRecord(row, "a", CellStatus.DONE, answer(row)),),
        held=(HeldRecord(row, "b", "rate_limited", 99.5, 1, b"[]"),),
        spent=(SpentRecord(row, "a", 1, "provider_error", Usage(1, 2)),),
    )


def expected(row: int) -> StoredRow:
    whole = batch(row)
    return StoredRow(whole.rows[0], whole.cells, whole.held)


class Writer:
    """Commits rows in groups, as the store's thread does, and remembers what was acknowledged."""

    def __init__(self, disk: Disk) -> None:
        self.logs = RunLogs(disk, ROOT / "store", Durability.HOST, lambda: 1.0, pack_after=3)
        self.opened: Opened | None = None

    def open(self, run: str = RUN) -> None:
        with self._transaction():
            self.opened = self.logs.open(run, FINGERPRINTS)

    def commit(self, rows: Sequence[int], *, pack: bool = True) -> None:
        assert self.opened is not None
        info = self.opened.info
        batches = [self.logs.payloads.move_out(batch(row), self.logs.key(info.run), info.epoch) for row in rows]
        with self._transaction():
            for each in batches:
                self.logs.write(self.opened, each)
        if pack:
            self.logs.wrote(1)

    def finish(self) -> None:
        assert self.opened is not None
        with self._transaction():
            self.logs.finish(self.opened, "completed")

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self.logs.begin(writes=True)
        try:
            yield
            self.logs.commit()
        except BaseException:
            self.logs.connection().execute("ROLLBACK")
            raise


def stored(disk: CrashingDisk, run: str = RUN) -> list[StoredRow]:
    reader = Writer(disk)
    reader.logs.begin(writes=True)
    try:
        reader.logs.catch_up(run)
        reader.logs.commit()
        return reader.logs.payloads.move_in(load(reader.logs.connection(), run, 0, 999), run)
    except UnknownRun:
        return []
    finally:
        reader.logs.close()


SIZES = (2, 1, 3)
groups = st.lists(st.integers(1, 3), min_size=1, max_size=5)


def play(disk: CrashingDisk, sizes: Sequence[int], reopen_after: int, acknowledged: list[int]) -> None:
    """Open the run, commit rows in groups, take it over once in between, finish it."""
    writer = Writer(disk)
    writer.open()
    row = 0
    for number, size in enumerate(sizes):
        if number == reopen_after:
            old, writer = writer, Writer(disk)
            writer.open()
            with pytest.raises(FencedOut):
                old.commit([row])
        rows = range(row, row + size)
        writer.commit(rows)
        acknowledged += rows
        row += size
    writer.finish()


def check(disk: CrashingDisk, acknowledged: Sequence[int], largest: int) -> None:
    """D2: what was acknowledged, and perhaps the one group that was under way, and of that all or nothing."""
    rows = stored(disk)
    assert [one.record.row for one in rows] == list(range(len(rows))), "a hole"
    assert rows == [expected(one.record.row) for one in rows], "a batch by half"
    assert len(acknowledged) <= len(rows) <= len(acknowledged) + largest, (len(acknowledged), len(rows))


@given(sizes=groups, reopen_after=st.integers(0, 5), seed=st.integers(0, 2**32), data=st.data())
def test_power_is_lost_at_any_operation(sizes: list[int], reopen_after: int, seed: int, data: st.DataObject) -> None:
    """D1, D2: on a disk that keeps, drops, reorders or tears what was not synced; and the run goes on afterwards."""
    whole = CrashingDisk()
    play(whole, sizes, reopen_after, [])
    disk = CrashingDisk()
    disk.dies_at = data.draw(st.integers(1, whole.operations), label="dies at")
    acknowledged: list[int] = []
    with pytest.raises(PowerLoss):
        play(disk, sizes, reopen_after, acknowledged)
    disk.restart(Random(seed))
    check(disk, acknowledged, max(sizes))
    rest = range(len(stored(disk)), sum(sizes) + 2)
    heir = Writer(disk)
    heir.open()
    for row in rest:
        heir.commit([row])
    disk.restart(Random(seed))
    assert stored(disk) == [expected(row) for row in range(rest.stop)]


OLD = "over"


def finished_and_live(disk: CrashingDisk) -> None:
    """One run that ended, of several segments, and one that goes on, opened twice, with logs that can be packed."""
    for run, ends in ((OLD, True), (RUN, False)):
        for first in (0, 3):
            writer = Writer(disk)
            writer.open(run)
            for row in range(first, min(4, first + 3)):
                writer.commit([row], pack=False)
        if ends:
            writer.finish()


def sweep_all(disk: Disk) -> tuple[str, ...]:
    logs = Writer(disk).logs
    try:
        return run_sweep.sweep(logs, 2.0, 0.0, {"completed"}).runs
    finally:
        logs.close()


def sweep_breaks(forgotten: Site | None, seeds: Sequence[int], every: int = 1) -> str | None:
    """What breaks when a sweeper dies at any operation, another one goes on, and then the power fails.

    Syncs that the store asks for at ``forgotten`` are left out. Of ``every`` operations in a row each seed is at one.
    """
    ready, live = CrashingDisk(), [expected(row) for row in range(4)]
    finished_and_live(ready)
    whole = deepcopy(ready)
    assert sweep_all(whole) == (OLD,)
    for seed in seeds:
        for dies_at in range(ready.operations + 1 + seed % every, whole.operations + 1, every):
            disk = deepcopy(ready)
            disk.forgotten, disk.dies_at = forgotten, dies_at
            with pytest.raises(PowerLoss):
                sweep_all(disk)
            disk.dies_at = 0
            if another := seed % 3:
                sweep_all(disk)
            swept = is_swept(disk, OLD) if seed % 2 else False
            disk.restart(Random(seed))
            try:
                assert stored(disk) == live, "the run that goes on"
                assert is_swept(disk, OLD) or not swept, "expired, and there again"
                assert is_swept(disk, OLD) or (not another and stored(disk, OLD) == live), "half a run"
            except (AssertionError, StoreError) as error:
                return f"died at {dies_at}, seed {seed}: {error}"
    return None


def test_power_is_lost_while_somebody_sweeps() -> None:
    """D2: what a run refers to is there; a run that is dropped is whole or expired, and the next sweep goes on."""
    assert sweep_breaks(None, seeds=(1, 4), every=EVERY) is None


def is_swept(disk: CrashingDisk, run: str) -> bool:
    try:
        stored(disk, run)
    except ResultExpired:
        return True
    return False


def syncs() -> list[Site]:
    """Every place in the store where something is made to last; not where it is only tried."""
    return [
        (path.name, call.lineno)
        for path in sorted(Path(run_logs.__file__).parent.glob("*.py"))
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef) and function.name != "probe"
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("sync", "sync_dir")
    ]


def breaks(site: Site, seeds: int, every: int = 1) -> bool:
    """Whether some loss of power breaks a promise when what is asked for at ``site`` is left out.

    The writer dies first, another process reads what it left, then the power fails: what was read must still be there.
    """
    whole = CrashingDisk()
    play(whole, SIZES, 1, [])
    for seed in range(seeds):
        for dies_at in range(1 + seed % every, whole.operations + 1, every):
            disk, acknowledged = CrashingDisk(), list[int]()
            disk.forgotten, disk.dies_at = site, dies_at
            with pytest.raises(PowerLoss):
                play(disk, SIZES, 1, acknowledged)
            disk.dies_at = 0
            seen = len(stored(disk)) if seed % 2 else 0
            disk.restart(Random(seed))
            try:
                check(disk, acknowledged, max(SIZES))
                assert len(stored(disk)) >= seen
            except (AssertionError, StoreError):
                return True
    return False


@pytest.mark.parametrize("site", syncs(), ids="{0[0]}:{0[1]}".format)
def test_no_sync_can_be_left_out(site: Site) -> None:
    """T50: each sync in the code is needed: without it something acknowledged is lost, or there by half."""
    assert breaks(site, seeds=20)


def test_with_every_sync_nothing_breaks() -> None:
    """The search above finds nothing where nothing is left out."""
    assert not breaks(("no such file", 0), seeds=2, every=EVERY)


def files_below(directory: Directory) -> list[tuple[Directory, str]]:
    """Every file of the store, as the directory that it is in and its name there."""
    found: list[tuple[Directory, str]] = []
    for name, thing in directory.names.items():
        found += files_below(thing) if isinstance(thing, Directory) else [(directory, name)]
    return found


@given(seed=st.integers(0, 2**32), share=st.floats(0.0, 1.0), way=st.sampled_from(["flip", "cut", "remove"]))
def test_any_damage_is_found_or_leaves_a_prefix(seed: int, share: float, way: str) -> None:
    """D2: a bit flipped, a file cut or gone, wherever: a clear error, or a prefix of what was committed."""
    disk = CrashingDisk()
    finished_and_live(disk)
    if seed % 2:
        sweep_all(disk)  # a pack in place of the slots
    live = disk.root.names["store"]
    assert isinstance(live, Directory)
    directory, name = Random(seed).choice(files_below(live))
    file = directory.names[name]
    assert isinstance(file, File)
    at = int(share * max(0, len(file.data) - 1))
    match way:
        case "flip" if file.data:
            file.data = file.data[:at] + bytes([file.data[at] ^ 1]) + file.data[at + 1 :]
        case "cut":
            file.data = file.data[:at]
        case _:
            del directory.names[name]
    for run in (RUN, OLD):
        try:
            rows = stored(disk, run)
        except StoreError:
            continue
        assert rows == [expected(row) for row in range(len(rows))]


@pytest.mark.parametrize("segment", [1, 2, 3])
def test_a_log_with_a_hole_is_no_shorter_log(segment: int) -> None:
    """D2: a slot that has gone is told, whatever comes after it; and nobody goes on in its place."""
    disk = CrashingDisk()
    finished_and_live(disk)
    key = Writer(disk).logs.key(RUN)
    slots = ROOT / "store" / "headgate-1" / "runs" / key / "segments" / f"{segment:08d}"
    assert disk.names(slots) == ["00000000", "00000001", "00000002", "00000003"][: len(disk.names(slots))]
    disk.remove(slots / sorted(disk.names(slots))[-2])
    for _ in range(2):
        with pytest.raises(ResultCorrupt, match="missing"):
            stored(disk)
        with pytest.raises(ResultCorrupt, match="missing"):
            Writer(disk).open()
