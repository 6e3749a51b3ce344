"""How a shared run has ended is what its groups and cells say, whoever lives to say so."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

import headgate
from headgate.reports.wording import moment, standing, times
from headgate.storage import Batch, CellRecord, CellStatus, PostgresStore, read_overview
from tests.integration.engine_share_child import RUN as SHARED
from tests.integration.engine_share_child import pipeline
from tests.integration.postgres_child import COLUMNS, RUN, batch
from tests.integration.postgres_server import shared_server
from tests.integration.warm_children import WarmChild

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from headgate.storage import RunInfo, SharedRun

ROOT = Path(__file__).resolve().parents[2]
ROWS = 256

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def without_failure(row: int) -> Batch:
    done = CellRecord(row, "b", CellStatus.DONE, b"1")
    return replace(batch(row), cells=(batch(row).cells[0], done))


async def work(run: SharedRun, group: int, of_a_row: Batch) -> None:
    """Claim the next group, which is ``group``, commit ``of_a_row`` in it, and say that it is complete."""
    (claim,) = await run.claim(1, 30.0)
    assert claim.group == group
    await run.commit(of_a_row)
    await run.complete([claim])


@asynccontextmanager
async def two_parts() -> AsyncGenerator[tuple[SharedRun, SharedRun, PostgresStore]]:
    """Two engines' parts in a run with two groups of one row."""
    server = shared_server()
    with server.schema() as schema:
        one, other = (PostgresStore(server.dsn, schema=schema) for _ in range(2))
        a, b = [await store.join_run(RUN, COLUMNS, group_rows=1) for store in (one, other)]
        await a.extend(2)
        yield a, b, one
        await one.aclose()
        await other.aclose()


def ended(info: RunInfo) -> tuple[str, bool]:
    return info.status, info.finished_at is not None


@pytest.mark.parametrize("failed", [0, 1, None])
async def test_a_cell_that_failed_in_any_engine_is_a_failure_of_the_run(failed: int | None) -> None:
    """The engine that committed it may have ended long before the run was complete, or be dead."""
    async with two_parts() as (a, b, store):
        await work(a, 0, batch(0) if failed == 0 else without_failure(0))
        await a.finish("completed")
        assert ended(store.read_info(RUN)) == ("running", False), "there is a group left"
        await work(b, 1, batch(1) if failed == 1 else without_failure(1))
        await b.finish("completed")
        assert ended(store.read_info(RUN)) == ("completed" if failed is None else "completed_with_failures", True)


async def test_who_finds_nothing_to_do_says_of_the_others_what_is_true() -> None:
    async with two_parts() as (a, b, store):
        await work(a, 0, batch(0))
        await work(a, 1, without_failure(1))
        await a.finish("completed_with_failures")
        await b.finish("completed")
        assert ended(store.read_info(RUN)) == ("completed_with_failures", True)


async def test_failures_of_columns_that_the_engines_do_not_have_any_more_are_none_of_the_run() -> None:
    async with two_parts() as (a, _, store):
        await work(a, 0, batch(0))
        await work(a, 1, batch(1))
        fewer = await store.join_run(RUN, {"a": "1"}, group_rows=1, kept=["a"])
        await fewer.finish("completed")
        assert ended(store.read_info(RUN)) == ("completed", True)


async def test_a_run_that_gets_more_rows_goes_on() -> None:
    """Whoever was killed in the middle of them left a run that read as ended."""
    async with two_parts() as (a, b, store):
        await work(a, 0, without_failure(0))
        await work(a, 1, without_failure(1))
        await a.finish("completed")
        await b.extend(2)
        assert ended(store.read_info(RUN)) == ("completed", True)
        await b.extend(3)
        assert ended(store.read_info(RUN)) == ("running", False)
        await work(b, 2, without_failure(2))
        await b.finish("completed")
        await store.join_run(RUN, COLUMNS, group_rows=1)
        assert ended(store.read_info(RUN)) == ("running", False), "who joins may have rows of his own"


async def test_a_cell_that_somebody_alone_reopened_is_done_by_those_who_share_the_run_next() -> None:
    """He was killed before he had another outcome of it: its group is not complete, nor is the run."""
    async with two_parts() as (a, _, store):
        await work(a, 0, without_failure(0))
        await work(a, 1, batch(1))
        await a.finish("completed")
        alone = await store.open_run(RUN, COLUMNS)
        await alone.commit(Batch(reopened=((1, "b"),)))
        again = await store.join_run(RUN, COLUMNS, group_rows=1)
        await again.finish("completed")
        assert ended(store.read_info(RUN)) == ("running", False)
        await work(again, 1, without_failure(1))
        await again.finish("completed")
        assert ended(store.read_info(RUN)) == ("completed", True)


@pytest.mark.parametrize("way", ["kept", "alone with all", "alone with theirs"])
async def test_groups_that_engines_with_fewer_columns_completed_are_open_for_more(way: str) -> None:
    """The columns are those of the run all the same, and none of them is new."""
    fewer = {"a": "1", "b": "1"}
    async with two_parts() as (_, _, store):
        await store.open_run(RUN, COLUMNS)
        some = await store.join_run(RUN, fewer, group_rows=1)
        await work(some, 0, without_failure(0))
        await work(some, 1, without_failure(1))
        if way == "kept":
            again = await store.join_run(RUN, COLUMNS, group_rows=1, kept=COLUMNS)
        else:
            await store.open_run(RUN, COLUMNS if way == "alone with all" else fewer)
            again = await store.join_run(RUN, COLUMNS, group_rows=1)
        assert [claim.group for claim in await again.claim(9, 30.0)] == [0, 1]
        less = await store.join_run(RUN, fewer, group_rows=1, kept=fewer)
        await less.complete(await less.claim(9, 30.0))
        more = await store.join_run(RUN, COLUMNS, group_rows=1, kept=COLUMNS)
        await more.complete(await more.claim(9, 30.0))
        less = await store.join_run(RUN, fewer, group_rows=1, kept=fewer)
        assert await less.claim(9, 30.0) == [], "they were complete with more columns"


async def test_the_failures_of_an_engine_that_was_killed_are_in_the_status() -> None:
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        arguments = [server.dsn, schema, str(ROWS), "1.0", "with a bug", "auto"]
        command = [sys.executable, "-m", "tests.integration.engine_share_child", *arguments]
        victim, heir = (WarmChild(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(2))
        with victim, heir:
            try:
                assert victim.stdin is not None
                assert victim.stdout is not None
                assert await anyio.to_thread.run_sync(victim.stdout.readline) == "ready\n"
                victim.stdin.close()
                while not server.execute(f"SELECT number FROM {schema}.row_group WHERE number = 0 AND NOT open"):  # noqa: ASYNC110
                    await anyio.sleep(0.01)
                victim.kill()
                said, _ = await anyio.to_thread.run_sync(heir.communicate, 60.0)
            finally:
                victim.kill()
                heir.kill()
        assert "ask 0\n" not in said
        assert said.endswith(f" {ROWS - 1}\n"), said[-200:]
        assert store.read_info(SHARED).status == "completed_with_failures"
        await store.aclose()


async def test_a_shared_run_that_nobody_works_on_says_so_and_since_when() -> None:
    """An engine that is killed says nothing; its claims run out."""
    async with two_parts() as (a, _, store):
        assert store.read_shared(RUN) == (2, 0, 0, None)
        await a.claim(1, 1e6)
        assert store.read_shared(RUN) == (2, 0, 1, None)
        assert "; shared: 0 of 2 row groups complete, 1 in hand" in times(read_overview(store, RUN))
        alone = await store.open_run(RUN, {})
        assert store.read_shared(RUN) is None
        await alone.aclose()
        a = await store.join_run(RUN, COLUMNS, group_rows=1)
        claims = await a.claim(2, 0.001)
        await anyio.sleep(0.01)
        left = store.read_shared(RUN)
        assert left is not None
        assert left[:3] == (2, 0, 0)
        assert left.left_at == pytest.approx(time.time(), abs=60.0)
        seen = read_overview(store, RUN)
        assert (seen.abandoned, standing(seen)) == (True, "not ended, and nobody works on it")
        assert f"nobody works on it since {moment(left.left_at)}" in times(seen)
        plan = await headgate.aplan(pipeline("1"), 0, store=store, run=RUN, on_change="keep")
        assert any("0 of 2 row groups complete, nobody works on it since" in told for told in plan.notices)
        await a.complete(claims)
        assert store.read_shared(RUN) == (2, 2, 0, None)
        assert "all 2 row groups complete, but nobody has ended the run" in times(read_overview(store, RUN))
        await a.finish("completed")
        seen = read_overview(store, RUN)
        assert (seen.abandoned, "shared" in times(seen)) == (False, False)
        plan = await headgate.aplan(pipeline("1"), 0, store=store, run=RUN, on_change="keep")
        assert not any("row groups" in told for told in plan.notices)
