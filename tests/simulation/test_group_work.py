"""One engine's part of a shared run in virtual time: what wakes it, and how it ends when it is told to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.errors import HeadgateError
from headgate.storage import work_on_groups
from headgate.testing import run_virtual
from tests.simulation.shared_memory import SharedMemory, SharedMemoryRun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

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


@pytest.mark.parametrize("after_s", [0.5, 1.0])
def test_groups_that_are_handed_out_to_somebody_who_is_cancelled_meanwhile_are_given_back(after_s: float) -> None:
    """Nobody knew of them, so they were kept from everybody until their lease had ended."""

    async def body(run: SharedMemoryRun, begun: list[int]) -> None:
        async def work(claim: Claim) -> None:
            begun.append(claim.group)

        with anyio.move_on_after(after_s):
            await work_on_groups(run, work, lease_s=600.0)
        assert begun == []
        assert anyio.current_time() == pytest.approx(1.0)
        assert all(group.free(anyio.current_time()) for group in run.board.groups)

    part(SlowToClaim, 3, body)


class HangsOnClaiming(SharedMemoryRun):
    """No answer to who asks for groups comes for ten minutes."""

    async def claim(self, most: int, lease_s: float) -> list[Claim]:
        await anyio.sleep(600.0)
        return await super().claim(most, lease_s)


def test_a_store_that_hands_out_nothing_keeps_nobody_who_is_cancelled_for_long() -> None:
    async def body(run: SharedMemoryRun, begun: list[int]) -> None:
        async def work(claim: Claim) -> None:
            begun.append(claim.group)

        with anyio.move_on_after(2.0):
            await work_on_groups(run, work)
        assert begun == []
        assert anyio.current_time() <= 10.0

    part(HangsOnClaiming, 3, body)


class HangsOnRenewal(SharedMemoryRun):
    """No answer to a renewal comes for ten minutes."""

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> list[Claim]:
        await anyio.sleep(600.0)
        return await super().renew(claims, lease_s)


@pytest.mark.parametrize("at_once", [1, 2])
def test_work_on_a_claim_that_runs_out_while_a_renewal_hangs_is_dropped_in_time(at_once: int) -> None:
    """Somebody else may have the group by then, or this engine itself, and pays for the same rows."""

    async def body(run: SharedMemoryRun, begun: list[int]) -> None:
        dropped: list[float] = []

        async def work(claim: Claim) -> None:
            begun.append(claim.group)
            try:
                await anyio.sleep(300.0 if len(begun) == 1 else 1.0)
            except anyio.get_cancelled_exc_class():
                dropped.append(anyio.current_time())
                raise

        await work_on_groups(run, work, lease_s=60.0, at_once=at_once)
        assert dropped == [pytest.approx(60.0)]
        assert begun == [0, 0]

    part(HangsOnRenewal, 1, body)


def test_work_on_a_group_that_somebody_else_has_completed_is_waited_for_without_asking_all_the_time() -> None:
    """It hears of its loss at the next renewal. Until then the store was asked as often as it could answer."""

    async def body(run: SharedMemoryRun, begun: list[int]) -> None:
        asked = 0
        progress = run.progress

        async def counted() -> Progress:
            nonlocal asked
            asked += 1
            return await progress()

        async def work(claim: Claim) -> None:
            group = run.board.groups[claim.group]
            group.open, group.token = False, group.token + 1
            await anyio.sleep_forever()

        run.progress = counted  # type: ignore[method-assign]
        await work_on_groups(run, work, lease_s=60.0)
        assert anyio.current_time() == pytest.approx(15.0)
        assert asked <= 5

    part(SharedMemoryRun, 1, body)


@pytest.mark.parametrize("call", ["claim", "renew", "complete", "progress"])
def test_t62_what_somebody_else_cancels_is_not_the_end_of_the_run(call: str) -> None:
    """A store's own task was cancelled, and the work on all groups ended as if they were complete (on asyncio alone:
    trio cannot leak a cancellation)."""

    async def body(run: SharedMemoryRun, begun: list[int]) -> None:
        async def leaks(*_: object) -> None:
            raise asyncio.CancelledError

        async def work(claim: Claim) -> None:
            begun.append(claim.group)
            await anyio.sleep(30.0)

        setattr(run, call, leaks)
        with pytest.raises(HeadgateError, match="cancelled by somebody else"):
            await work_on_groups(run, work, at_once=3 if call == "progress" else 1, lease_s=60.0)
        assert any(group.open for group in run.board.groups)

    part(SharedMemoryRun, 2, body)
