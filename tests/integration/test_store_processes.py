"""Stores among several real processes: readers, writers and sweepers at once; kill -9; one that sleeps and wakes up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import anyio
import pytest

from headgate.errors import StoreUnavailable
from headgate.storage import Batch, CellRecord, CellStatus, RowRecord, SqliteStore
from tests.integration.warm_children import WarmChild

from .store_child import COLUMNS, COMMITTERS, KINDS, is_whole, open_store

if TYPE_CHECKING:
    from collections.abc import Generator

    from headgate.storage import RunHandle, RunStore

CHILD = Path(__file__).with_name("store_child.py")
KILLS = int(os.environ.get("HEADGATE_KILLS", "6"))
"""How many times a child is killed, for each store."""

pytestmark = pytest.mark.parametrize("kind", KINDS)


@contextmanager
def child(kind: str, place: Path, role: str, *rest: object) -> Generator[WarmChild]:
    command = [sys.executable, str(CHILD), kind, str(place), role, *map(str, rest)]
    with WarmChild(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_of(process: WarmChild) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def acknowledged(lines: IO[str], many: int) -> set[int]:
    return {int(next(lines)) for _ in range(many)}


def stored_rows(kind: str, place: Path) -> set[int]:
    rows = list(open_store(kind, place).read_rows("run"))
    assert all(map(is_whole, rows)), "a batch by half"
    return {row.record.row for row in rows}


def test_t43_readers_writers_and_sweepers_share_a_store(kind: str, tmp_path: Path) -> None:
    """T43, T48: nobody takes away what a run refers to, and what a reader sees is whole."""
    with (
        child(kind, tmp_path, "commit", 0) as committer,
        child(kind, tmp_path, "sweep") as sweeper,
        child(kind, tmp_path, "sweep") as another,
        child(kind, tmp_path, "short", "one") as one,
        child(kind, tmp_path, "short", "two") as two,
        child(kind, tmp_path, "read") as reader,
    ):
        rows = acknowledged(lines_of(committer), 60)
        (tmp_path / "stop").touch()
        others = [int(lines_of(process).readline()) for process in (one, two, reader)]
        (tmp_path / "stop sweeping").touch()
        swept = [int(lines_of(process).readline()) for process in (sweeper, another)]
        assert [process.wait() for process in (one, two, reader, sweeper, another)] == [0] * 5
        committer.kill()
        rows |= {int(line) for line in lines_of(committer) if line.endswith("\n")}
    assert rows <= stored_rows(kind, tmp_path)
    assert sum(swept) > 0, "somebody swept"
    assert min(others) > 0, "and everybody else did something"


def test_kill_9_at_any_instant_loses_nothing(kind: str, tmp_path: Path) -> None:
    """D1, D2: what was acknowledged is there, what was under way as a whole or not at all; and the next one goes on."""
    dice = random.Random(kind)
    known, repeated = set[int](), 0
    for _ in range(KILLS):
        with child(kind, tmp_path, "commit", max(known, default=-1) + 1) as process:
            lines = lines_of(process)
            known |= acknowledged(lines, dice.randrange(1, 40))
            time.sleep(dice.random() * 0.01)
            process.kill()
            known |= {int(line) for line in lines if line.endswith("\n")}
        assert process.returncode == -signal.SIGKILL
        there = stored_rows(kind, tmp_path)
        assert known <= there, f"lost: {known - there}"
        assert len(there - known) <= COMMITTERS, "more than was under way"
        repeated += len(there - known)
        known = there
    print(f"{kind}: {KILLS} kills, {len(known)} rows, {repeated} of them not acknowledged, none lost")


async def take_over(store: RunStore, process: WarmChild) -> RunHandle:
    """Open the run that a stopped process writes to."""
    for _ in range(50):
        try:
            return await store.open_run("run", COLUMNS)
        except StoreUnavailable:
            # It was stopped while it held SQLite's lock, which nobody can take from it.
            process.send_signal(signal.SIGCONT)
            await anyio.sleep(0.005)
            process.send_signal(signal.SIGSTOP)
    raise AssertionError("always stopped inside a transaction")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_d4_who_sleeps_while_another_takes_over_is_fenced_out(kind: str, tmp_path: Path) -> None:
    """D4, T49: SIGSTOP, a new epoch, SIGCONT: not one of its commits is taken any more, and it is told."""
    with child(kind, tmp_path, "commit", 0) as process:
        lines = lines_of(process)
        known = acknowledged(lines, 30)
        process.send_signal(signal.SIGSTOP)
        store = (
            SqliteStore(tmp_path / "store.db", busy_timeout_s=0.5) if kind == "sqlite" else open_store(kind, tmp_path)
        )
        handle = await take_over(store, process)
        before = {row.record.row for row in await handle.load(0, 1_000_000)}
        mine = range(max(before) + 1, max(before) + 1 + COMMITTERS)
        cells = [CellRecord(row, "a", CellStatus.DONE, b'"mine"') for row in mine]
        records = [RowRecord(row, f"id{row}", b"digest", b"{}") for row in mine]
        await handle.commit(Batch(rows=tuple(records), cells=tuple(cells)))
        process.send_signal(signal.SIGCONT)
        *late, fenced, _ = list(lines)
        assert fenced == "fenced out\n"
        assert process.wait() == 0
    assert known | {int(line) for line in late} <= before, "acknowledged before it was stopped"
    rows = await handle.load(0, 1_000_000)
    assert {row.record.row for row in rows} == before | set(mine)
    assert [row.cells[0].payload for row in rows if row.record.row in mine] == [b'"mine"'] * COMMITTERS
    await store.aclose()
