"""The gate with a clock: waiting for leases, on asyncio and on trio.

Performs what :class:`~headgate.admission.gate.Gate` decides, and decides nothing itself. One event per waiter, one
clock task per controller, no lock: everything runs on the loop that entered the controller.
"""

from __future__ import annotations

import random
import time
from math import inf
from typing import TYPE_CHECKING, Self, assert_never

import anyio

from ..errors import AdmissionError, ConfigError
from ..values import Feedback, Outcome, Pressure, ResourceKey, Usage
from ..wakeup import Home, Wakeup, loop_clock
from .answers import Bidder, Waiting
from .gate import Gate
from .headers import parse_feedback
from .limits import Limits
from .limits_book import LimitsBook, LimitsSource, load_limits, parse_limits, wider_scopes
from .memory import ScopeMemory, learned, restore
from .refusals import refused, timed_out, unknown
from .scope_limits import alias_limits, limits_along, limits_in_force
from .values import Denied, DenyReason, Expire, Grant, Lease, Refuse, ReleaseResult, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set
    from types import TracebackType

    from anyio.abc import TaskGroup

    from .scope import Scope

__all__ = ["AdmissionController"]


class AdmissionController:
    """Lets requests out to providers as their limits allow, and learns those limits from the answers.

    ``limits`` is a TOML file, a mapping of scope names to limits, one :class:`Limits` for every model, or None for
    limits that are found out while running. ``seed`` makes its jitter repeatable. Use it as an async context
    manager::

        async with AdmissionController({"openai/gpt-x": {"concurrency": 8}}) as admission:
            lease = await admission.acquire(Request(ResourceKey.parse("openai/gpt-x")))
            ...
            admission.release(lease, Outcome.SUCCESS)
    """

    def __init__(
        self,
        limits: LimitsSource = None,
        *,
        seed: int | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.book: LimitsBook = load_limits(limits)
        self._wall_clock = wall_clock
        self._gate = Gate(rng=random.Random(seed))
        self._timers = self._gate.timers
        self._waiting: dict[int, Waiting | Bidder] = {}
        self._clock = Wakeup()
        self._clock_due = inf
        self._now: Callable[[], float] = anyio.current_time
        self._home: Home | None = None
        self._timeouts: dict[str, float] = {}  # the book's, by resource in use
        self._aliases: dict[str, list[str]] = {}  # other names in use, by the scope that they lead to
        self._tasks: TaskGroup | None = None
        self._paused: set[str] = set()
        self._pause_ended = -inf

    async def __aenter__(self) -> Self:
        self._now = loop_clock()
        self._home = Home()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run_clock)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        await self.aclose()
        self._tasks.cancel_scope.cancel()
        # The clock task raises nothing, so the caller's error passes without a group around it.
        await self._tasks.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """Refuse all waiters and every later request with ``shutdown``. Leases may still be released."""
        self._gate.shutdown(anyio.current_time())
        self._perform()

    # Resources

    def register(self, resource: ResourceKey) -> None:
        """Make ``resource`` usable. Raises AdmissionDenied when the limits name models, and not this one."""
        if self._gate.knows(resource):
            return
        if not self.book.knows(resource):
            raise unknown(resource, self.book.suggest(str(resource)))
        now = anyio.current_time()
        target = self.book.alias_of(resource)
        if target is not None and target != resource:
            self.register(target)
            stated = self.book.for_scope(str(resource))
            self._gate.alias(resource, target, None if stated is None else alias_limits(stated), now)
            self._aliases.setdefault(self._gate.scope_of(target), []).append(str(resource))
            self._perform()  # its limits may refuse some who wait
            return
        self._gate.register(resource, limits_along(resource, self.book), now)

    def set_limits(self, scope: str, limits: Limits | Mapping[str, object]) -> None:
        """Work under other limits in ``scope`` (``openai``, ``openai/gpt-x``, ...) from now on, also lower ones.

        What is inherited (``queue_timeout``, ``cooldown``, ``share``) holds for what is beneath it as well, and what an
        alias states goes on to bound its target. Raises ConfigError for limits that cannot be meant and for a scope
        that no resource in use has.
        """
        stated = limits if isinstance(limits, Limits) else parse_limits(scope, limits)
        self._scope(scope)
        self.book = self.book.replaced(scope, stated)
        self._timeouts.clear()
        now = anyio.current_time()
        for name, found in self._gate.scopes().items():
            if (
                name == scope
                or scope in wider_scopes(name)
                or any(scope in wider_scopes(alias) for alias in self._aliases_of(name))
            ):
                limits_now = limits_in_force(name, self.book, self._aliases_of(name), leaf=found.leaf)
                if limits_now is not None and (name == scope or limits_now != found.limits):
                    self._gate.set_limits(name, limits_now, now)
        self._perform()

    def change_limits(self, scope: str, changes: Mapping[str, object]) -> None:
        """Change these limits of ``scope`` and leave its others as they are; None takes one away.

        A concurrency or a rate that is taken away is not filled in from ``"*"`` either. What always has a value, like
        ``queue_timeout``, is as if the scope did not state it. Raises ConfigError as :meth:`set_limits` does.
        """
        self.set_limits(scope, self.book.changed(scope, changes))

    def pause(self, scope: str) -> None:
        """Let nothing out in ``scope`` until it is resumed. Raises ConfigError for one that no resource in use has."""
        self._scope(scope)
        self.block(scope, inf)
        self._paused.add(scope)

    def resume(self, scope: str) -> None:
        """End a pause; a cooldown that the provider asked for stays. Raises ConfigError as :meth:`pause` does."""
        self._scope(scope)
        if scope in self._paused:
            self._paused.discard(scope)
            self._pause_ended = anyio.current_time()
            self.unblock(scope)

    @property
    def paused(self) -> Set[str]:
        """The scopes that are paused. To be read only."""
        return self._paused

    def paused_at(self, now: float) -> float:
        """When a scope was last paused: ``now`` while one is, ``-inf`` if none ever was."""
        return now if self._paused else self._pause_ended

    def pressure(self, resource: ResourceKey) -> Pressure:
        """One look at ``resource``. Raises AdmissionDenied when it is unknown."""
        self.register(resource)
        return self._gate.pressure(resource, anyio.current_time())

    def learned(self) -> dict[str, ScopeMemory]:
        """What the scopes in use have learned, by name, to begin with in another process."""
        return learned(self._gate.scopes().values(), anyio.current_time())

    def restore(self, kept: Mapping[str, ScopeMemory], *, age_s: float = 0.0) -> list[str]:
        """Begin with what was learned ``age_s`` seconds ago, in the registered scopes that were not used yet.

        Limits that are configured now win over it. Returns the names of those scopes.
        """
        now, scopes = anyio.current_time(), self._gate.scopes()
        return [name for name in kept if name in scopes and restore(scopes[name], kept[name], now, age_s=age_s)]

    def wall_now(self) -> float:
        """Wall-clock seconds since 1970, as dates in responses are read against."""
        return self._wall_clock()

    @property
    def home(self) -> Home:
        """The loop that it was entered on: everything else here is to be called there."""
        assert self._home is not None, "enter the controller first"
        return self._home

    @property
    def gate(self) -> Gate:
        """The decision underneath, to look at and to check."""
        return self._gate

    # Requests

    async def acquire(self, request: Request) -> Lease:
        """Wait until ``request`` may go out. The lease must be released exactly once.

        Raises AdmissionTimeout when the queue timeout passes first (0: at once unless there is room), and
        AdmissionDenied when waiting cannot help. Does not suspend when there is room.
        """
        self.register(request.resource)
        answer = self._gate.submit(request, self._now(), timeout_s=self._queue_timeout(request))
        if isinstance(answer, int):
            # Known before effects are performed: its own grant may be among them.
            waiting = self._waiting[answer] = Waiting()
            self._perform()
            return await self._wait(answer, waiting, request)
        self._perform()
        if isinstance(answer, Denied):
            raise self._refused(answer, request, 0.0)
        return answer

    def try_acquire(self, request: Request) -> Lease | Denied:
        """A lease if ``request`` may go out now, else why not. Never overtakes a waiter that could go."""
        self.register(request.resource)
        answer = self._gate.try_acquire(request, anyio.current_time())
        self._perform()
        return answer

    def bid(self, request: Request, bidder: Bidder, now: float) -> Lease | Denied | int:
        """A lease now, or the number of a standing bid whose grant goes to ``bidder``, or a final refusal.

        ``now`` is the present ``anyio.current_time()``, which a scheduler that places many tasks at once has at hand.
        """
        answer = self._gate.submit(request, now, bid=True)
        if isinstance(answer, int):
            self._waiting[answer] = bidder
        if self._gate.effects or self._timers.earliest < self._clock_due:  # asked here too: mostly there is neither
            self._perform()
        return answer

    def withdraw(self, bid: int) -> bool:
        """Take a bid back. False if it was answered before: a granted lease is then in its bidder's answers."""
        if self._waiting.pop(bid, None) is None:
            return False
        withdrawn = self._gate.withdraw(bid, anyio.current_time())
        self._perform()
        return withdrawn

    def report(
        self,
        lease: Lease,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        usage: Usage | None = None,
    ) -> Feedback | None:
        """Feed back what the client saw of a response: its status, headers and usage. Returns what was understood."""
        feedback = None
        if headers is not None:
            feedback = parse_feedback(headers, wall_now=self.wall_now(), status=status)
        self._gate.report(lease, anyio.current_time(), feedback=feedback, usage=usage)
        self._perform()
        return feedback

    def release(
        self,
        lease: Lease,
        outcome: Outcome,
        *,
        feedback: Feedback | None = None,
        usage: Usage | None = None,
        sent: bool = True,
        now: float | None = None,
    ) -> ReleaseResult:
        """Give ``lease`` back with what became of it. Never raises; a second release changes nothing.

        ``now`` is the present ``anyio.current_time()``, if the caller has it at hand.
        """
        if now is None:
            now = self._now()
        result = self._gate.release(lease, outcome, now, feedback=feedback, usage=usage, sent=sent)
        self._perform()
        return result

    def block(self, scope: str, until: float) -> None:
        """Close ``scope`` until ``until`` (seconds, ``anyio.current_time``; ``inf`` for until ``unblock``)."""
        if scope not in self._paused:  # else it is closed already, until somebody resumes it
            self._gate.block(scope, until, anyio.current_time())
            self._perform()

    def unblock(self, scope: str) -> None:
        """End a ``block``, not a pause."""
        if scope not in self._paused:
            self._gate.unblock(scope, anyio.current_time())
            self._perform()

    # The clock

    async def _run_clock(self) -> None:
        while True:
            self._clock_due = self._gate.next_tick(anyio.current_time())
            await self._clock.wait(self._clock_due)
            self._gate.tick(anyio.current_time())
            self._perform()

    def _perform(self) -> None:
        """Tell those who wait what became of them, and the clock when it is due earlier."""
        effects = self._gate.effects
        if effects:
            for effect in effects:
                self._waiting.pop(effect.waiter).deliver(effect)
            effects.clear()
        if self._timers.earliest < self._clock_due:
            self._clock_due = -inf
            self._clock.set()

    async def _wait(self, waiter: int, waiting: Waiting, request: Request) -> Lease:
        try:
            await waiting.event.wait()
        except BaseException:
            self._abandon(waiter, waiting)
            raise
        answer = waiting.answer
        assert answer is not None
        match answer:
            case Grant(lease=lease):
                return lease
            case Expire(waited_s=waited_s, pressure=pressure):
                raise timed_out(waited_s, pressure)
            case Refuse(denied=denied, waited_s=waited_s):
                raise self._refused(denied, request, waited_s)
            case _:
                assert_never(answer)

    def _abandon(self, waiter: int, waiting: Waiting) -> None:
        """The task was cancelled: leave the queue, or give back a lease that came in this very tick (A2, T16)."""
        if isinstance(waiting.answer, Grant):
            self.release(waiting.answer.lease, Outcome.CANCELLED, sent=False)
        elif self._waiting.pop(waiter, None) is not None:
            self._gate.withdraw(waiter, anyio.current_time())
            self._perform()

    # Words

    def _scope(self, scope: str) -> Scope:
        found = self._gate.scopes().get(scope)
        if found is None:
            known = ", ".join(sorted(self._gate.scopes())) or "none yet"
            raise ConfigError(f"no resource in use has the scope {scope!r} (in use: {known})")
        return found

    def _aliases_of(self, scope: str) -> list[str]:
        return self._aliases.get(scope, [])

    def _queue_timeout(self, request: Request) -> float:
        if request.queue_timeout_s is not None:
            return request.queue_timeout_s
        name = str(request.resource)
        timeout_s = self._timeouts.get(name)
        if timeout_s is None:
            stated = self.book.for_scope(name, leaf=True)
            timeout_s = self._timeouts[name] = inf if stated is None else stated.queue_timeout
        return timeout_s

    def _refused(self, denied: Denied, request: Request, waited_s: float) -> AdmissionError:
        resource = request.resource
        if denied.reason is DenyReason.UNKNOWN_RESOURCE:
            return unknown(resource, self.book.suggest(str(resource)))
        return refused(denied, request, waited_s, self._gate.pressure(resource, self._now()))
