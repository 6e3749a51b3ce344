"""Processes that die, stop, and servers that are killed lose nothing that was acknowledged (D1, D2, D4, D5; T51)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.errors import StoreUnavailable
from headgate.storage import Batch, CellRecord, CellStatus, PostgresStore, RowRecord, RunHandle
from headgate.values import Usage
from tests.integration.postgres_child import COLUMNS, RUN, batch, expected
from tests.integration.postgres_server import Server, new_server, shared_server
from tests.integration.warm_children import WarmChild

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).resolve().parents[2]
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
COMMITTERS = 3


class Child:
    """A process that commits, and what it has said so far."""

    def __init__(self, server: Server, schema: str, rows: int) -> None:
        command = [sys.executable, "-m", "tests.integration.postgres_child", server.dsn, schema, "3", str(rows)]
        self.process = WarmChild(command, stdout=subprocess.PIPE, cwd=ROOT)
        self.acknowledged: set[int] = set()
        self.last = ""

    def listen(self, acknowledgements: float = float("inf")) -> None:
        """Hear what it says until there are so many acknowledgements, or it ends."""
        assert self.process.stdout is not None
        while len(self.acknowledged) < acknowledgements and (line := self.process.stdout.readline()):
            self.last = line.strip()
            if self.last.isdigit():
                self.acknowledged.add(int(self.last))

    def kill(self) -> None:
        self.process.kill()
        self.listen()  # what was in the pipe was acknowledged too
        self.end()

    def end(self) -> None:
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def child(server: Server, schema: str, rows: int) -> Generator[Child]:
    started = Child(server, schema, rows)
    try:
        yield started
    finally:
        started.process.kill()
        started.end()


def check_what_is_left(store: PostgresStore, acknowledged: set[int], at_most_more: int) -> set[int]:
    """D2: nothing acknowledged is lost, nothing is there by half, and of each committer there is a prefix."""
    stored = list(store.read_rows(RUN))
    rows = {found.record.row for found in stored}
    assert acknowledged <= rows, f"lost: {acknowledged - rows}"
    assert len(rows - acknowledged) <= at_most_more, f"more than was in flight: {rows - acknowledged}"
    for found in stored:
        assert found == expected(found.record.row), f"half a batch: {found}"
    for committer in range(COMMITTERS):
        mine = sorted(row for row in rows if row % COMMITTERS == committer)
        assert mine == [turn * COMMITTERS + committer for turn in range(len(mine))], f"a hole: {mine}"
    return rows


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_t51_killed_after_each_acknowledgement() -> None:
    """T51: the producer was told "done", then the write was lost. Killed at once when the word is out, and resumed."""
    server = shared_server()
    kills = 30 if THOROUGH else 4
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        acknowledged: set[int] = set()
        for kill in range(kills):
            with child(server, schema, rows=3_000) as committing:
                # What earlier processes have committed is acknowledged again: a no-op for the store (D3).
                committing.listen(len(acknowledged) + 1 + 7 * kill)
                committing.kill()
                acknowledged |= committing.acknowledged
            rows = await anyio.to_thread.run_sync(check_what_is_left, store, acknowledged, COMMITTERS)
            acknowledged = rows
        assert store.read_info(RUN).epoch == kills
        # D5: each attempt is on record once for each epoch that made it, however often it was committed.
        assert store.read_spent(RUN)["a"].output_tokens >= 3 * len(acknowledged)
        await store.aclose()


async def commit_patiently(handle: RunHandle, whole: Batch) -> None:
    """As the engine does: a store that says it may recover is asked again."""
    while True:
        try:
            return await handle.commit(whole)
        except StoreUnavailable:
            await anyio.sleep(0.02)


@pytest.mark.parametrize("reconnect_s", [0.0, 10.0], ids=["told", "untold"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_server_is_killed_and_restarted_under_load(reconnect_s: float) -> None:
    """D2, D9: whether the store waits for the server itself or says that it is away: nothing is lost or doubled."""
    rounds = 20 if THOROUGH else 3
    server = new_server()
    rng = random.Random(7)
    ended = threading.Event()
    restarts = 0

    def restart() -> None:
        nonlocal restarts
        while restarts < rounds:
            time.sleep(rng.uniform(0.1, 0.5))
            server.kill()
            server.start()
            restarts += 1
        ended.set()

    acknowledged: set[int] = set()
    store = PostgresStore(server.dsn, reconnect_s=reconnect_s)
    handle = await store.open_run(RUN, COLUMNS)

    async def commit_some(first: int) -> None:
        row = first
        while not ended.is_set():
            await commit_patiently(handle, batch(row))
            acknowledged.add(row)
            row += COMMITTERS

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, restart)
        for committer in range(COMMITTERS):
            tasks.start_soon(commit_some, committer)
    assert restarts == rounds
    rows = await anyio.to_thread.run_sync(check_what_is_left, store, acknowledged, 0)
    assert rows == acknowledged
    assert len(rows) > 10 * rounds
    assert store.read_spent(RUN)["a"] == Usage(2 * len(rows), 3 * len(rows))
    assert store.read_info(RUN).epoch == 1
    await store.aclose()
    server.remove()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_engine_that_is_stopped_is_taken_over_and_fenced_out() -> None:
    """D4: stopped in the middle of its commits it keeps nobody waiting, and when it goes on it can write no more."""
    server = shared_server()
    for _ in range(10 if THOROUGH else 2):
        with server.schema() as schema, child(server, schema, rows=100_000) as stopped:
            stopped.listen(acknowledgements=20)
            os.kill(stopped.process.pid, signal.SIGSTOP)
            store = PostgresStore(server.dsn, schema=schema)
            with anyio.fail_after(10):
                handle = await store.open_run(RUN, COLUMNS)
            taken_over = {stored.record.row for stored in await handle.load(0, 200_000)}
            mine = Batch(
                rows=(RowRecord(99_999, "id99999", b"digest", b"{}"),),
                cells=(CellRecord(99_999, "a", CellStatus.DONE, b'"by the new one"'),),
            )
            with anyio.fail_after(10):
                await handle.commit(mine)
            os.kill(stopped.process.pid, signal.SIGCONT)
            await anyio.to_thread.run_sync(stopped.listen)
            assert stopped.last == "FencedOut"
            stored = {found.record.row for found in await handle.load(0, 200_000)}
            assert stored == taken_over | {99_999}
            assert stopped.acknowledged <= taken_over
            await store.aclose()
