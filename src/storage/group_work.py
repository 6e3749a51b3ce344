"""One engine's part of a shared run: claim row groups, work on them, keep them, say when they are complete.

What runs out or is lost is dropped in the middle of the work: somebody else has it, or will. What fails is given back
at once, with everything else, before the error goes on.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from ..errors import ClaimLost, HeadgateError, StoreError
from .claims import HeldClaims
from .patience import patiently

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .sharing import Claim, SharedRun

__all__ = ["work_on_groups"]

T = TypeVar("T")

_LONGEST_WAIT_S: Final = 5.0
"""How long an engine that finds nothing to do waits before it asks how far the others are."""
_SHORTEST_WAIT_S: Final = 0.05
_LET_GO_S: Final = 5.0


async def work_on_groups(
    run: SharedRun,
    work: Callable[[Claim], Awaitable[bool | None]],
    *,
    at_once: int | Callable[[], int] = 2,
    lease_s: float = 60.0,
    stopping: anyio.Event | None = None,
) -> None:
    """Call ``work`` for row groups until all of the run are complete, here and in other engines.

    ``work`` has committed everything about the rows of its claim when it returns; it is cancelled when the claim is
    lost. If it returns False, something of the group cannot be done now: the group is kept from others until there is
    nothing else to do here, then given back, and the work ends without waiting for others. Up to ``at_once`` groups, or
    as many as it says each time, are worked on here at a time. A group whose engine is gone is taken over after
    ``lease_s`` seconds at most. Once ``stopping`` is set no more groups are begun, and the work ends with those that
    were. Raises what ``work`` raises, and StoreError.
    """
    most = at_once if callable(at_once) else lambda: at_once
    await _Work(run, work, most, lease_s, anyio.Event() if stopping is None else stopping).run()


class _Work:
    def __init__(
        self,
        run: SharedRun,
        work: Callable[[Claim], Awaitable[bool | None]],
        at_once: Callable[[], int],
        lease_s: float,
        stopping: anyio.Event,
    ) -> None:
        self._run = run
        self._work = work
        self._at_once = at_once
        self._lease_s = lease_s
        self._stopping = stopping
        self._held = HeldClaims(lease_s)
        self._scopes: dict[Claim, anyio.CancelScope] = {}
        self._left: set[Claim] = set()  # held here, and not to be done now
        self._coming: list[Claim] = []  # handed out, and not taken up yet
        self._changed = anyio.Event()
        self._through = False

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep)
                tasks.start_soon(self._hear)
                tasks.start_soon(self._see_through, tasks)
            if not self._through:  # a task ended by a cancellation that was not ours, and the group says no word of it
                raise HeadgateError(
                    "something that the work on row groups awaited was cancelled by somebody else; what was committed "
                    "stays"
                )
        finally:
            if mine := [*self._scopes, *self._left, *self._coming]:
                with anyio.move_on_after(_LET_GO_S, shield=True), suppress(StoreError):
                    await self._run.give_back(mine)

    async def _see_through(self, tasks: anyio.abc.TaskGroup) -> None:
        while await self._claim(tasks):
            pass
        self._through = True
        tasks.cancel_scope.cancel()

    async def _claim(self, tasks: anyio.abc.TaskGroup) -> bool:
        """Take what there is room for, and wait for a reason to look again. False if nothing is left."""
        if self._stopping.is_set():
            return await self._see_out()
        room = self._at_once() - len(self._scopes)
        if room > 0:
            asked_at, _ = await _patiently(partial(self._ask, tasks, room))
            claims, self._coming = self._coming, []
            self._held.granted(claims, asked_at)
            if self._stopping.is_set():  # while the store was asked
                self._left.update(claims)
                return True
            self._drop([old for old in (*self._scopes, *self._left) if any(old.group == new.group for new in claims)])
            for claim in claims:
                self._scopes[claim] = anyio.CancelScope()
                tasks.start_soon(self._work_on, claim)
            room -= len(claims)
            self._tell()
            if self._left and not self._scopes:
                return False
        wait_s, changed = _LONGEST_WAIT_S, self._changed  # what changes while the store is asked counts too
        if room > 0:
            _, progress = await _patiently(self._run.progress)
            if progress.complete == progress.groups and not self._scopes:
                return False  # else what goes on here has ended, or was lost to others and they have ended it
            if progress.free_in_s is not None:
                wait_s = min(max(progress.free_in_s, _SHORTEST_WAIT_S), wait_s)
        with anyio.move_on_after(wait_s):
            await changed.wait()
        return True

    async def _ask(self, tasks: anyio.abc.TaskGroup, room: int) -> None:
        """Let groups be handed out. If the work is cancelled meanwhile the store is heard out, within reason: what it
        hands out to somebody who is gone would be kept from everybody until the lease ends."""
        heard_out = anyio.CancelScope(shield=True)
        answered = anyio.Event()
        refused: list[StoreError] = []

        async def ask() -> None:
            with heard_out:
                try:
                    self._coming = await self._run.claim(room, self._lease_s)
                except StoreError as error:
                    refused.append(error)
            answered.set()

        tasks.start_soon(ask)
        try:
            await answered.wait()
        finally:
            heard_out.deadline = anyio.current_time() + _LET_GO_S
        for error in refused:
            raise error

    async def _see_out(self) -> bool:
        """Begin nothing; wait for an end of what goes on. False if nothing does."""
        if self._scopes:
            await self._changed.wait()
        return bool(self._scopes)

    async def _hear(self) -> None:
        await self._stopping.wait()
        self._tell()

    async def _work_on(self, claim: Claim) -> None:
        with self._scopes[claim], suppress(ClaimLost):
            if await self._work(claim) is False:
                self._left.add(claim)
            else:
                await _patiently(partial(self._run.complete, [claim]))
        # An error leaves the claim here, to be given back.
        del self._scopes[claim]
        if claim not in self._left:
            self._held.dropped([claim])
        self._tell()

    async def _keep(self) -> None:
        """Renew claims in time, and drop the work on those that are not to be had any more."""
        while True:
            changed = self._changed
            with anyio.CancelScope(deadline=self._held.next_tick()):
                await changed.wait()
            now = anyio.current_time()
            self._drop(self._held.lapsed(now))
            due = self._held.due(now)
            if due:
                # A store that hangs is waited for until the first claim lapses, not longer.
                with anyio.CancelScope(deadline=self._held.next_lapse()):
                    await self._renew(due, now)

    async def _renew(self, due: list[Claim], now: float) -> None:
        try:
            lost = await self._run.renew(due, self._lease_s)
        except StoreError as error:
            if not error.retryable:
                raise
            return  # there is time for another try before they run out
        self._drop(lost)
        self._held.granted((claim for claim in due if claim not in lost and claim in self._held), now)

    def _drop(self, claims: Iterable[Claim]) -> None:
        gone = list(claims)
        for claim in gone:
            if claim in self._scopes:
                self._scopes[claim].cancel()
            self._left.discard(claim)
        self._held.dropped(gone)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def _patiently(ask: Callable[[], Awaitable[T]]) -> tuple[float, T]:
    """Ask a store that may be away for a moment; return when it was asked, and what it said. Raises StoreError."""
    asked_at = anyio.current_time()

    async def again() -> T:
        nonlocal asked_at
        asked_at = anyio.current_time()
        return await ask()

    found = await patiently(again)
    return asked_at, found
