"""One engine's part of a shared run in virtual time: what wakes it, and how it ends when it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.storage import work_on_groups
from headgate.testing import run_virtual
from tests.simulation.shared_memory import SharedMemory, SharedMemoryRun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headgate.storage import Claim, Progress


class SlowToCount(SharedMemoryRun):
    """It takes two seconds to say how far the run has got, and says how it was then."""

    async def progress(self) -> Progress:
        progress = await super().progress()
        await anyio.sleep(2.0)
        return progress


class SlowToClaim(SharedMemoryRun):
    """It has handed out groups a second before whoever asked hears of it."""

    async def claim(self, most: int, lease_s: float) -> list[Claim]:
        claims = await super().claim(most, lease_s)
        await anyio.sleep(1.0)
        return claims


def part(
    kind: Callable[..., SharedMemoryRun],
    groups: int,
    body: Callable[[SharedMemoryRun, list[int]], Awaitable[object]],
) -> None:
    """``body`` with a shared run of that many groups of one row, and a list for those that were begun."""

    async def main() -> None:
        store = SharedMemory()
        first = await store.join_run("run", {"a": "1"}, group_rows=1)
        run = kind(first.board)
        await run.extend(groups)
        await body(run, [])

    run_virtual(main)


def test_a_group_that_ends_while_the_store_is_asked_for_the_progress_is_not_waited_for() -> None:
    async def body(run: SharedMemoryRun, begun: list[int]) -> None:
        async def work(claim: Claim) -> None:
            begun.append(claim.group)
            await anyio.sleep(1.0)

        await work_on_groups(run, work, at_once=2)
        # Asked twice, at 0 and at 2 s, when the group had ended a second ago: nobody comes to tell of it again.
        assert anyio.current_time() == pytest.approx(4.0)

    part(SlowToCount, 1, body)


@pytest.mark.parametrize("of_others", [False, True], ids=["own groups", "groups of others only"])
def test_work_that_is_told_to_stop_begins_nothing_more_and_ends_with_what_it_has(of_others: bool) -> None:
    async def body(run: SharedMemoryRun, begun: list[int]) -> None:
        stopping = anyio.Event()
        if of_others:
            await SharedMemoryRun(run.board).claim(20, 600.0)

        async def work(claim: Claim) -> None:
            begun.append(claim.group)
            await anyio.sleep(7.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: work_on_groups(run, work, stopping=stopping))
            await anyio.sleep(1.0)
            stopping.set()
        assert begun == ([] if of_others else [0, 1])
        assert anyio.current_time() == pytest.approx(1.0 if of_others else 7.0)
        assert sum(not group.open for group in run.board.groups) == len(begun)

    part(SharedMemoryRun, 20, body)


def test_groups_that_come_when_nobody_wants_them_any_more_are_given_back() -> None:
    async def body(run: SharedMemoryRun, begun: list[int]) -> None:
        stopping = anyio.Event()

        async def work(claim: Claim) -> None:
            begun.append(claim.group)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: work_on_groups(run, work, stopping=stopping))
            await anyio.sleep(0.5)
            stopping.set()
        assert begun == []
        assert all(group.free(anyio.current_time()) for group in run.board.groups)

    part(SlowToClaim, 3, body)
