"""Several engines on one run in a PostgreSQL database: each row once in effect, whoever dies or sleeps (D3 to D5)."""

from __future__ import annotations

import os
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

from headgate.errors import ClaimLost, FencedOut
from headgate.storage import Batch, PostgresStore, work_on_groups
from tests.integration.postgres_child import COLUMNS, RUN, batch, expected
from tests.integration.postgres_server import Server, shared_server
from tests.integration.sharing_child import GROUP_ROWS
from tests.integration.sharing_child import RUN as SHARED
from tests.integration.warm_children import WarmChild

if TYPE_CHECKING:
    from collections.abc import Generator

    from headgate.storage import Claim, SharedRun, SharingStore

ROOT = Path(__file__).resolve().parents[2]
ROWS = 403


class Engine:
    """A process that shares the run, and what it has said."""

    def __init__(self, server: Server, schema: str, name: str, lease_s: float, backend: str) -> None:
        command = [sys.executable, "-m", "tests.integration.sharing_child"]
        arguments = [server.dsn, schema, name, str(ROWS), str(lease_s), backend]
        self.process = WarmChild([*command, *arguments], stdout=subprocess.PIPE, cwd=ROOT)
        self.started: list[int] = []
        self.done: list[int] = []
        self.last = ""
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last, _, row = line.strip().partition(" ")
            if self.last in ("start", "done"):
                (self.started if self.last == "start" else self.done).append(int(row))

    def wait_for(self, rows: int) -> None:
        while len(self.done) < rows and self._listener.is_alive():
            time.sleep(0.005)

    def end(self) -> None:
        self._listener.join(timeout=60)
        assert not self._listener.is_alive(), "it does not end"
        self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def engines(server: Server, schema: str, lease_s: float) -> Generator[list[Engine]]:
    """Two of them, one on asyncio and one on trio."""
    started = [Engine(server, schema, name, lease_s, backend) for name, backend in (("a", "asyncio"), ("b", "trio"))]
    try:
        yield started
    finally:
        for engine in started:
            engine.process.kill()
            engine.end()


def check_each_row_once(server: Server, schema: str, both: list[Engine]) -> dict[int, str]:
    """Every row has one outcome, and those who were told "done" about a row find their own one. Returns them."""
    store = PostgresStore(server.dsn, schema=schema)
    outcomes = {stored.record.row: str(stored.cells[0].payload) for stored in store.read_rows(SHARED)}
    assert list(outcomes) == list(range(ROWS))
    for engine, name in zip(both, "ab", strict=True):
        assert all(f"{row} by {name}" in outcomes[row] for row in engine.done)
    # Spent tokens are on record by attempt, not by row: one for each that was committed.
    assert store.read_spent(SHARED)["answer"].input_tokens == ROWS
    anyio.run(store.aclose)
    return outcomes


def test_two_engines_share_a_run_and_each_row_is_done_once() -> None:
    """D5: nothing was asked twice at all, because nobody died."""
    server = shared_server()
    with server.schema() as schema, engines(server, schema, lease_s=30) as both:
        for engine in both:
            engine.end()
        assert [engine.last for engine in both] == ["end", "end"]
        assert sorted(both[0].started + both[1].started) == list(range(ROWS))
        check_each_row_once(server, schema, both)


def test_an_engine_that_is_killed_is_taken_over() -> None:
    """D5: what it had in flight is done again, and nothing else."""
    server = shared_server()
    with server.schema() as schema, engines(server, schema, lease_s=1.0) as both:
        victim, other = both
        victim.wait_for(20)
        victim.process.kill()
        other.end()
        assert other.last == "end"
        victim.end()
        check_each_row_once(server, schema, both)
        again = set(victim.started) & set(other.started)
        assert len(again) <= 2, f"more than was in flight: {again}"
        assert set(victim.done).isdisjoint(other.done)


def test_an_engine_that_sleeps_loses_its_groups_and_nothing_else() -> None:
    """D4: stopped past its lease it is taken over; when it goes on, what it still does on lost groups has no effect."""
    server = shared_server()
    with server.schema() as schema, engines(server, schema, lease_s=1.0) as both:
        sleeper, other = both
        sleeper.wait_for(20)
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        other.end()
        assert other.last == "end"
        os.kill(sleeper.process.pid, signal.SIGCONT)
        sleeper.end()
        assert sleeper.last == "end"
        check_each_row_once(server, schema, both)
        assert set(sleeper.done).isdisjoint(other.done)


@contextmanager
def two_stores(reconnect_s: float = 10.0) -> Generator[tuple[PostgresStore, PostgresStore]]:
    server = shared_server()
    with server.schema() as schema:
        yield (
            PostgresStore(server.dsn, schema=schema, reconnect_s=reconnect_s),
            PostgresStore(server.dsn, schema=schema, reconnect_s=reconnect_s),
        )


async def test_groups_are_handed_out_once_and_in_order() -> None:
    with two_stores() as (one, other):
        a = await one.join_run(RUN, COLUMNS, group_rows=4)
        b = await other.join_run(RUN, COLUMNS, group_rows=9)  # the first one has said how large they are
        await a.extend(10)
        await b.extend(7)
        first, second = await a.claim(2, 30.0)
        assert await b.claim(5, 30.0) == []  # it has no row of the third
        assert (await b.progress())[:3] == (2, 0, 2)
        await b.extend(10)
        (third,) = await b.claim(5, 30.0)
        assert [(claim.first, claim.last) for claim in (first, second, third)] == [(0, 4), (4, 8), (8, 10)]
        assert await a.claim(5, 30.0) == []
        await b.give_back([third])
        assert [claim[:3] for claim in await a.claim(5, 30.0)] == [third[:3]]
        await one.aclose()
        await other.aclose()


async def test_engines_that_ask_at_the_same_time_get_different_groups() -> None:
    with two_stores() as (one, other):
        runs: list[SharedRun] = [await store.join_run(RUN, COLUMNS, group_rows=2) for store in (one, other)]
        await runs[0].extend(80)
        claims: list[Claim] = []

        async def claim(run: SharedRun) -> None:
            while found := await run.claim(3, 30.0):
                claims.extend(found)

        async with anyio.create_task_group() as tasks:
            for run in runs * 2:
                tasks.start_soon(claim, run)
        assert sorted(claim.group for claim in claims) == list(range(40))
        await one.aclose()
        await other.aclose()


async def test_only_claimed_rows_can_be_written() -> None:
    """D4: by row group. A claim that ran out stands until somebody else wants the group."""
    with two_stores() as (one, other):
        a = await one.join_run(RUN, COLUMNS, group_rows=2)
        b = await other.join_run(RUN, COLUMNS, group_rows=2)
        await a.extend(4)
        (mine,) = await a.claim(1, 0.05)
        with pytest.raises(ClaimLost, match="row group 1"):
            await a.commit(batch(2))
        await anyio.sleep(0.1)
        await a.commit(batch(0))
        (theirs,) = await b.claim(1, 30.0)
        assert theirs == mine._replace(token=mine.token + 1)
        for late in (a.commit(batch(1)), a.complete([mine])):
            with pytest.raises(ClaimLost, match="row group 0"):
                await late
        assert await a.renew([mine], 30.0) == [mine]
        assert await b.renew([theirs], 30.0) == []
        await b.commit(batch(1))
        await b.complete([theirs])
        assert list(one.read_rows(RUN)) == [expected(0), expected(1)]
        await one.aclose()
        await other.aclose()


async def test_a_lost_group_takes_no_other_commit_along() -> None:
    """T32: commits that go to the server together, one of them about a group of somebody else by now."""
    with two_stores() as (one, other):
        a = await one.join_run(RUN, COLUMNS, group_rows=1)
        b = await other.join_run(RUN, COLUMNS, group_rows=1)
        await a.extend(6)
        await a.claim(6, 0.01)
        await anyio.sleep(0.05)
        await b.claim(1, 30.0)
        lost: list[int] = []

        async def commit(row: int) -> None:
            try:
                await a.commit(batch(row))
            except ClaimLost:
                lost.append(row)

        async with anyio.create_task_group() as tasks:
            for row in range(6):
                tasks.start_soon(commit, row)
        assert lost == [0]
        assert list(one.read_rows(RUN)) == [expected(row) for row in range(1, 6)]
        await one.aclose()
        await other.aclose()


async def test_opening_a_run_alone_fences_out_those_who_share_it_and_the_reverse() -> None:
    """D4: one engine alone, or several together, never both."""
    with two_stores() as (one, other):
        a = await one.join_run(RUN, COLUMNS, group_rows=2)
        await a.extend(4)
        await a.claim(1, 30.0)
        alone = await other.open_run(RUN, COLUMNS)
        for late in (a.commit(batch(0)), a.claim(1, 30.0), a.extend(9), a.finish("completed"), a.commit(Batch())):
            with pytest.raises(FencedOut):
                await late
        await alone.commit(batch(3))
        again = await one.join_run(RUN, COLUMNS, group_rows=2)
        with pytest.raises(FencedOut):
            await alone.commit(batch(2))
        assert [claim.group for claim in await again.claim(9, 30.0)] == [0, 1]  # the old claims are over
        await one.aclose()
        await other.aclose()


async def test_t53_a_shared_run_is_extended() -> None:
    """D8: a group that was complete is open again for the rows that it got, and for nothing else."""
    with two_stores() as (one, other):
        run = await one.join_run(RUN, COLUMNS, group_rows=GROUP_ROWS)
        worked: list[int] = []

        async def work(claim: Claim) -> None:
            for row in range(claim.first, claim.last):
                await run.commit(batch(row))
            worked.append(claim.group)

        for rows, groups in ((20, [0, 1, 2]), (20, []), (22, [2]), (40, [2, 3, 4])):
            worked.clear()
            await run.extend(rows)
            await work_on_groups(run, work)
            assert sorted(worked) == groups
            assert one.read_info(RUN).rows == rows
            assert (await run.progress()).free_in_s is None
        await one.aclose()
        await other.aclose()


async def test_t49_one_lost_heartbeat_costs_nothing() -> None:
    """T49: the lease ended and the work was done twice. Here two renewals in a row may get lost."""
    with two_stores() as (one, other):
        run = await one.join_run(RUN, COLUMNS, group_rows=2)
        b = await other.join_run(RUN, COLUMNS, group_rows=2)
        await run.extend(2)
        heard = 0
        answer = run.renew

        async def renew(claims: list[Claim], lease_s: float) -> list[Claim]:
            nonlocal heard
            heard += 1
            return await answer(claims, lease_s) if heard % 3 == 0 else []

        taken: list[Claim] = []

        async def work(claim: Claim) -> None:
            for _ in range(12):
                await anyio.sleep(0.1)
                taken.extend(await b.claim(1, 30.0))
            for row in range(claim.first, claim.last):
                await run.commit(batch(row))

        run.renew = renew  # type: ignore[method-assign,assignment]
        await work_on_groups(run, work, lease_s=0.8)
        assert heard >= 4
        assert taken == []
        await one.aclose()
        await other.aclose()


async def test_work_that_fails_gives_its_groups_back_at_once() -> None:
    with two_stores() as (one, other):
        run = await one.join_run(RUN, COLUMNS, group_rows=1)
        await run.extend(4)

        async def work(claim: Claim) -> None:
            await anyio.sleep(0.01)
            raise ValueError(claim.group)

        with pytest.raises(ExceptionGroup):
            await work_on_groups(run, work, lease_s=600.0)
        b = await other.join_run(RUN, COLUMNS, group_rows=1)
        assert len(await b.claim(9, 30.0)) == 4
        await one.aclose()
        await other.aclose()


def offers_sharing(store: PostgresStore) -> SharingStore:
    """A type checker sees that the store is what the port asks for."""
    return store
