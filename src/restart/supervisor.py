"""Lives of a run, one after another, as long as it is decided that there is another one."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import anyio

from ..errors import (
    ConfigError,
    FencedOut,
    FingerprintMismatch,
    InputError,
    LedgerMismatch,
    PipelineError,
    RowFailed,
    SchemaMismatch,
    StoreUnsupported,
)
from ..events import RestartAsked, RestartDecided, RestartDone, RestartRefused
from ..events.sinks import Ear
from ..log import logger
from ..values import EXIT_CODES
from ..wakeup import is_leaked
from .lives import LifeEnd, Supervised, pause_s
from .record import Action
from .values import Failure, cause_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..events import EventSink
    from ..values import Rng
    from .coordinator import Entry, RestartCoordinator
    from .record import Decision

__all__ = ["NO_CURE", "Life", "Supervisor"]

T = TypeVar("T")


NO_CURE = (
    *(ConfigError, PipelineError, InputError, RowFailed, FencedOut, LedgerMismatch),
    *(FingerprintMismatch, SchemaMismatch, StoreUnsupported),
)
"""What no restart cures: the program is wrong or wanted it so, somebody else has the run, headgate has a fault."""


class Life(NamedTuple):
    """What a life is begun with. Once ``stopping`` is set the run is closed, and the life is to end soon."""

    entry: Entry
    stopping: anyio.Event


class Supervisor:
    """Runs ``live`` again and again, as long as the replicas decide so.

    ``live`` is one life of the run, from its opening to its end; what it raises is a cause like any other, unless no
    restart cures it. ``recover`` is what has to be done after a failure: it goes on while the sources analyse, for
    ``recovery_timeout`` at most. A life that is told to end has ``grace_s`` seconds, and is then cancelled. ``rng``
    spreads the pauses. ``events`` is told what is asked and decided: see :mod:`headgate.events`.
    """

    def __init__(
        self,
        coordinator: RestartCoordinator,
        live: Callable[[Life], Awaitable[LifeEnd]],
        *,
        recover: Callable[[], Awaitable[None]] | None = None,
        grace_s: float = 10.0,
        rng: Rng | None = None,
        events: EventSink | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._live = live
        self._recover = recover
        self._grace_s = grace_s
        self._rng = rng or random.Random()
        self._ear = Ear(events)
        self._stopped = False
        self._life: Life | None = None
        self._between = anyio.CancelScope()
        self.done = False
        """Whether it has ended."""

    def stop(self) -> None:
        """Its user wants no more: the life is to end, and none follows. Nothing is decided, so it can go on later."""
        self._stopped = True
        if self._life is None:
            self._between.cancel()
        else:
            self._life.stopping.set()

    async def run(self, *, reopen: bool = False) -> Supervised:
        """Return when the run has finished, was stopped by its user, or is closed by a decision.

        A run that is closed already stays so unless it is told to ``reopen`` it. Raises StoreError if the place where
        decisions are kept does not answer, and whatever no restart cures.
        """
        try:
            return await self._run(reopen=reopen)
        finally:
            self.done = True

    async def _run(self, *, reopen: bool) -> Supervised:
        lives, end = 0, None
        while True:
            entry = await self._unless_stopped(partial(self._coordinator.enter, reopen=reopen and not lives))
            if entry is None:
                return _stopped(lives, end)
            if entry.closed is not None:
                return self._told(entry.closed, lives, None)
            if not lives and await self._unless_stopped(partial(self._wait_on, entry)) is None:
                return _stopped(lives, end)
            self._say_done(entry, lives + 1)
            if self._stopped:  # by whoever was just told: neither a pause nor a life would hear of it
                return _stopped(lives, end)
            lives += 1
            end, told = await self._one_life(entry)
            if end is not None and end.cause is None:
                if end.finished:
                    await self._coordinator.finished(end.status)
                if end.finished or told is None:
                    return Supervised(end.status, end.exit_code, lives, None, end)
            if told is not None:
                return self._told(told, lives, end)
            assert end is not None, "a life that nobody told to end has an end of its own"
            after = partial(self._after, entry, end)
            decision = await self._unless_stopped(after)
            if decision is None:
                return _stopped(lives, end)
            if not decision.action.goes_on:
                return self._told(decision, lives, end)

    def _say_done(self, entry: Entry, lives: int) -> None:
        if lives > 1 and self._ear:
            self._ear.say(RestartDone(self._coordinator.wall_time(), self._coordinator.run, entry.cycle, lives))

    async def _wait_on(self, entry: Entry) -> bool:
        """Whoever is begun again in the pause before this life waits for the rest of it: else being killed ends it."""
        decision = self._coordinator.record.decided(entry.cycle - 1)
        if decision is not None and decision.action.goes_on:
            since = max(0.0, self._coordinator.wall_time() - decision.at)
            await anyio.sleep(max(0.0, self._pause_s(decision) - since))
        return True

    def _pause_s(self, decision: Decision) -> float:
        config = self._coordinator.config
        return pause_s(decision.fruitless, config.first_pause, config.longest_pause, self._rng)

    async def _one_life(self, entry: Entry) -> tuple[LifeEnd | None, Decision | None]:
        """How the life ended, unless it was cancelled, and the decision that told it to, if one did."""
        end: LifeEnd | None = None
        told: Decision | None = None
        final: Exception | None = None
        life = self._life = Life(entry, anyio.Event())
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal told
                told = await self._coordinator.told_to_stop()
                logger().info(
                    "restart_told_to_stop", run=self._coordinator.run, cycle=told.cycle, action=told.action.value
                )
                life.stopping.set()
                await anyio.sleep(self._grace_s)
                scope.cancel()

            tasks.start_soon(watch)
            with anyio.CancelScope() as scope:
                try:
                    end = await self._end_of(life)
                except NO_CURE as error:
                    final = error  # raised outside of the group, so that it comes as it is
            tasks.cancel_scope.cancel()
        self._life = None
        if final is not None:
            raise final
        return end, told

    async def _unless_stopped(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """What ``call`` returns; None if the user does not want to wait for it."""
        if self._stopped:
            return None
        with anyio.CancelScope() as self._between:
            return await call()
        return None

    async def _end_of(self, life: Life) -> LifeEnd:
        try:
            return await self._live(life)
        except NO_CURE:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not is_leaked(error):
                raise
            logger().exception("restart_life_crashed", run=self._coordinator.run, cycle=life.entry.cycle)
            return LifeEnd("crashed", 1, cause_of(error), finished=False)

    def _told(self, decision: Decision, lives: int, end: LifeEnd | None) -> Supervised:
        """No life follows."""
        action = decision.action
        if self._ear and action is not Action.FINISHED:
            at, run = self._coordinator.wall_time(), self._coordinator.run
            self._ear.say(RestartRefused(at, run, decision.cycle, action.value, decision.basis.value))
        code = 0 if action is Action.FINISHED else EXIT_CODES[action]
        return Supervised(action.value, code, lives, decision, end)

    async def _after(self, entry: Entry, end: LifeEnd) -> Decision:
        """Let it be decided while this replica recovers, and wait until it is time for the next life."""
        assert end.cause is not None
        ended_at = anyio.current_time()
        if self._ear:
            at, run = self._coordinator.wall_time(), self._coordinator.run
            self._ear.say(RestartAsked(at, run, entry.cycle, end.cause.kind, end.cause.message))
        self._coordinator.failed(Failure(end.cause, end.progress, epoch=end.epoch, ledger=end.ledger))
        decision: Decision | None = None
        async with anyio.create_task_group() as tasks:
            if self._recover is not None:
                tasks.start_soon(self._recover_from, self._recover)
            decision = await self._coordinator.decision()
        assert decision is not None, "the group passes on no errors of its own"
        pause = self._pause_s(decision)
        logger().info(
            "restart_decided",
            run=self._coordinator.run,
            cycle=decision.cycle,
            action=decision.action.value,
            basis=decision.basis.value,
            pause_s=round(pause, 3) if decision.action.goes_on else None,
        )
        if self._ear:
            at, run, action = self._coordinator.wall_time(), self._coordinator.run, decision.action
            wait_s = max(0.0, ended_at + pause - anyio.current_time()) if action.goes_on else None
            self._ear.say(RestartDecided(at, run, decision.cycle, action.value, decision.basis.value, wait_s))
        if decision.action.goes_on:
            await anyio.sleep_until(ended_at + pause)
        return decision

    async def _recover_from(self, recover: Callable[[], Awaitable[None]]) -> None:
        try:
            with anyio.fail_after(self._coordinator.config.recovery_timeout):
                await recover()
        except BaseException as error:
            if not isinstance(error, Exception) and not is_leaked(error):
                raise
            # The next life finds out what is missing; that the others wait for it helps nobody.
            logger().exception("restart_recovery_failed", run=self._coordinator.run)


def _stopped(lives: int, end: LifeEnd | None) -> Supervised:
    return Supervised("stopped", EXIT_CODES["stopped"], lives, None, end)
