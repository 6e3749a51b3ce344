"""A gate under observation: after every call the promises A1 to A10 are checked, as far as they show from outside.

Keeps books of its own (who holds what, who waits until when, how often limits fell) and compares. It decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf
from random import Random
from typing import TYPE_CHECKING, TypeVar

from headgate.admission.gate import Gate
from headgate.admission.values import Denied, DenyReason, Expire, Grant, Lease, Refuse, ReleaseResult, Request
from headgate.values import Feedback, Outcome, ResourceKey, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.admission.scope import Scope
    from headgate.admission.scope_limits import ScopeLimits

T = TypeVar("T")

ROUNDING = 1e-6
IDLE_TICKS_PER_S = 2500.0
IDLE_TICKS = 500.0
"""Ticks that moved nobody: more than these is a loop that burns the processor."""

SOON_S = 0.002
"""A10 holds but for what the gate is about to do: time alone is not worth a wake-up more than once a millisecond."""

FOOTPRINT_FIXED = 4096 + 4096
FOOTPRINT_EACH = 6


@dataclass(slots=True)
class _Waiting:
    request: Request
    lane: str
    expires: float  # on the open-time clock of its lane


@dataclass(slots=True)
class _Seen:
    """What a scope looked like at the end of the last call."""

    limit: float
    in_flight: int
    blocked_until: float
    base: float
    newest_at_cut: int = 0
    newest_at_slowing: int = 0


class WatchedGate:
    """Drives a :class:`Gate` in virtual time; everything that comes out of it is checked first."""

    def __init__(self, limits: dict[str, ScopeLimits], resources: list[ResourceKey], *, now: float, seed: int) -> None:
        self.now = now
        self.gate = Gate(rng=Random(seed))
        self.held: dict[int, Lease] = {}
        self.waiting: dict[int, _Waiting] = {}
        self.grants: list[Lease] = []
        self.granted = 0
        self.closed = False
        self.check_every = 1
        self._calls = 0
        self._idle_ticks = 0.0
        self._newest = 0
        self._open_s: dict[str, float] = {}
        self._keys: dict[str, ResourceKey] = {}
        self.names: dict[str, str] = {}
        self._seen: dict[str, _Seen] = {}
        for resource in resources:
            self.gate.register(resource, limits, now)
            self._open_s[str(resource)] = 0.0
            self._keys[str(resource)] = resource
            self.names[str(resource)] = str(resource)
        self._remember()

    # Calls

    def alias(self, resource: ResourceKey, target: ResourceKey, limits: ScopeLimits | None) -> None:
        self._call(lambda: self.gate.alias(resource, target, limits, self.now), moved=True)
        self.names.setdefault(str(resource), self.names[str(target)])

    def submit(self, request: Request, *, timeout_s: float = inf, bid: bool = False) -> bool:
        """Ask for one lease. False if it was denied."""

        def answered(answer: Lease | Denied | int) -> None:
            if isinstance(answer, Lease):
                self._take(answer, request)
            elif isinstance(answer, Denied):
                assert answer.reason.final or (answer.reason is DenyReason.QUEUE_TIMEOUT and timeout_s <= 0)
                assert not self.closed or answer.reason is DenyReason.SHUTDOWN
            else:
                assert bid or timeout_s > 0, "A3: a timeout of 0 must answer at once"
                assert answer not in self.waiting
                lane = self.names[str(request.resource)]
                self.waiting[answer] = _Waiting(request, lane, inf if bid else self._open_s[lane] + timeout_s)

        call = lambda: self.gate.submit(request, self.now, timeout_s=timeout_s, bid=bid)  # noqa: E731
        return not isinstance(self._call(call, answered=answered), Denied)

    def try_acquire(self, request: Request) -> None:
        self.tick()
        lane = self.names[str(request.resource)]
        ahead = any(waiting.lane == lane for waiting in self.waiting.values())

        def answered(answer: Lease | Denied) -> None:
            if isinstance(answer, Lease):
                assert not ahead, "A4: try_acquire overtook a waiter"
                self._take(answer, request)

        self._call(lambda: self.gate.try_acquire(request, self.now), answered=answered)

    def withdraw(self, number: int) -> None:
        del self.waiting[number]
        assert self._call(lambda: self.gate.withdraw(number, self.now)), "a waiter got lost"
        assert not self.gate.withdraw(number, self.now)

    def report(self, lease: Lease, feedback: Feedback | None, usage: Usage | None) -> None:
        self._call(lambda: self.gate.report(lease, self.now, feedback=feedback, usage=usage))

    def release(
        self,
        lease: Lease,
        outcome: Outcome,
        *,
        feedback: Feedback | None = None,
        usage: Usage | None = None,
        sent: bool = True,
    ) -> None:
        del self.held[lease.id]
        result = self._call(
            lambda: self.gate.release(lease, outcome, self.now, feedback=feedback, usage=usage, sent=sent),
            released=lease,
        )
        assert result is ReleaseResult.RELEASED, f"A2: {result}"

    def release_again(self, lease: Lease) -> None:
        """A2: what was released stays released."""
        leases = self.gate.leases()
        assert self.gate.release(lease, Outcome.RATE_LIMITED, self.now) in (
            ReleaseResult.DUPLICATE,
            ReleaseResult.STALE,
        )
        assert self.gate.leases() == leases

    def set_limits(self, scope: str, limits: ScopeLimits) -> None:
        self._call(lambda: self.gate.set_limits(scope, limits, self.now), moved=True)

    def block(self, scope: str, seconds: float) -> None:
        self._call(lambda: self.gate.block(scope, self.now + seconds, self.now))

    def unblock(self, scope: str) -> None:
        for seen in (self._seen[scope],):
            seen.blocked_until = -inf
        self._call(lambda: self.gate.unblock(scope, self.now))

    def shutdown(self) -> None:
        self.closed = True
        self._call(lambda: self.gate.shutdown(self.now))
        assert not self.waiting

    def backlog(self, resource: str) -> int:
        """How many wait for ``resource``."""
        lane = self.names[resource]
        return sum(waiting.lane == lane for waiting in self.waiting.values())

    # Time

    def next_at(self, end: float) -> float:
        """When the gate wants to be woken, ``end`` at the latest."""
        return min(end, max(self.now, self.gate.next_tick(self.now)))

    def pass_to(self, now: float) -> None:
        """Let time pass up to ``now``, not beyond what the gate waits for."""
        assert now >= self.now
        passed_s = now - self.now
        for name, lane in self._lanes().items():
            self._open_s[name] += max(0.0, now - max(self.now, lane))
        self._idle_ticks = max(0.0, self._idle_ticks - IDLE_TICKS_PER_S * passed_s)
        self.now = now
        self.tick()

    def tick(self) -> None:
        effects = self.granted
        due = self.gate.next_tick(self.now) <= self.now
        self._call(lambda: self.gate.tick(self.now))
        assert self.gate.next_tick(self.now) > self.now, "a timer is due for ever"
        if due and effects == self.granted:
            self._idle_ticks += 1.0
            assert self._idle_ticks <= IDLE_TICKS, "it is woken for nothing, again and again"

    def end(self) -> None:
        """A1: everything is released, every book is zero."""
        self.watch(1)
        for lease in list(self.held.values()):
            self.release(lease, Outcome.CANCELLED)
        for number in list(self.waiting):
            if number in self.waiting:
                self.withdraw(number)
        while self.held:
            self.release(next(iter(self.held.values())), Outcome.CANCELLED)
        self._check()
        assert self.gate.leases() == 0
        assert all(scope.in_flight == 0 for scope in self.gate.scopes().values())
        assert not any(scope.parked for scope in self.gate.scopes().values())

    def watch(self, every: int) -> None:
        """From now on look at everything after each ``every``-th call, and compare limits only if that is each."""
        self.check_every = every
        self._remember()

    # What every call is followed by

    def _call(
        self,
        call: Callable[[], T],
        *,
        released: Lease | None = None,
        moved: bool = False,
        answered: Callable[[T], None] | None = None,
    ) -> T:
        newest = self._newest
        answer = call()
        granted = isinstance(answer, Lease)  # after the waiters that the same call served
        if answered is not None and not granted:
            answered(answer)
        for effect in self.gate.take_effects():
            match effect:
                case Grant(waiter=waiter, lease=lease):
                    self._granted(self.waiting.pop(waiter), lease)
                case Expire(waiter=waiter, waited_s=waited_s):
                    waiting = self.waiting.pop(waiter)
                    assert waiting.expires < inf, "a waiter without a deadline expired"
                    assert waited_s >= 0.0
                    late = self._open_s[waiting.lane] - waiting.expires
                    assert late >= -ROUNDING * max(1.0, self.now * 1e-6), "A3: expired before its time"
                case Refuse(waiter=waiter, denied=denied):
                    del self.waiting[waiter]
                    assert denied.reason.final
        if answered is not None and granted:
            answered(answer)
        self._calls += 1
        if self.check_every == 1 or moved:
            self._compare(released, newest, moved=moved)
        if self._calls % self.check_every == 0:
            self._check()
        return answer

    def _granted(self, waiting: _Waiting, lease: Lease) -> None:
        assert waiting.request in (lease.request, lease.request.stated)
        assert self._open_s[waiting.lane] < waiting.expires, "A3: a waiter past its deadline got a lease"
        self._take(lease, waiting.request)

    def _take(self, lease: Lease, request: Request) -> None:
        assert not self.closed, "a lease after the shutdown"
        assert lease.id not in self.held
        assert request in (lease.request, lease.request.stated)
        assert lease.acquired_at == self.now
        assert lease.id > self._newest, "a lease number came again"
        for passage in lease.passages:
            scope = passage.scope
            assert scope.cooldown.blocked_until <= self.now, "A5: a lease during a cooldown"
            maximum = scope.limits.maximum
            assert maximum is None or scope.in_flight <= maximum, "A1: more in flight than was configured"
            if self.check_every == 1:
                most = max(scope.limit, self._seen[scope.name].limit)
                assert scope.in_flight <= most + ROUNDING, "A1: more in flight than the limit"
        self._newest = lease.id
        self.held[lease.id] = lease
        self.grants.append(lease)
        self.granted += 1

    def _compare(self, released: Lease | None, newest: int, *, moved: bool) -> None:
        """Compare every scope with what it was before the call."""
        for name, scope in self.gate.scopes().items():
            seen = self._seen[name]
            assert scope.cooldown.blocked_until >= seen.blocked_until, "A5: a cooldown got shorter"
            if not moved:
                self._compare_limits(scope, seen, released, newest)
        self._remember()

    def _compare_limits(self, scope: Scope, seen: _Seen, released: Lease | None, newest: int) -> None:
        limit, base = scope.limit, _base(scope)
        if limit > seen.limit + ROUNDING:
            most = max(seen.in_flight, scope.in_flight)
            assert most >= floor(seen.limit + ROUNDING) - 1, "A6: the limit grew unused"
        if limit < seen.limit - ROUNDING:
            assert released is not None, "a limit fell without a rejection"
            assert released.id > seen.newest_at_cut, "A6: one burst lowered the limit twice"
            seen.newest_at_cut = newest
        if base < seen.base and released is not None and seen.base < inf:
            if scope.cooldown.blocked_until > -inf:
                return  # a cooldown's end measures a window anew
            assert released.id > seen.newest_at_slowing, "A6: one burst lowered the rate twice"
            seen.newest_at_slowing = newest

    def _remember(self) -> None:
        for name, scope in self.gate.scopes().items():
            seen = self._seen.get(name)
            values = scope.limit, scope.in_flight, scope.cooldown.blocked_until, _base(scope)
            if seen is None:
                self._seen[name] = _Seen(*values)
            else:
                seen.limit, seen.in_flight, seen.blocked_until, seen.base = values

    def _check(self) -> None:
        gate = self.gate
        gate.check()
        assert gate.leases() == len(self.held), "A2: a lease leaked"
        counts = dict.fromkeys(gate.scopes(), 0)
        for lease in self.held.values():
            for passage in lease.passages:
                counts[passage.scope.name] += 1
        for name, scope in gate.scopes().items():
            assert scope.in_flight == counts[name], "A1: the leases are not what is in flight"
        for name, key in self._keys.items():
            look = gate.pressure(key, self.now)
            assert self.backlog(name) == look.waiting + look.bids, "a waiter got lost, or came twice"
        if gate.next_tick(self.now) > self.now + SOON_S:
            gate.check_conserving(self.now)
        entries = len(self.waiting) + len(self.held) + len(self._open_s) + len(counts)
        assert gate.footprint() <= FOOTPRINT_FIXED + FOOTPRINT_EACH * entries, "rubbish piles up"

    def _lanes(self) -> dict[str, float]:
        return {name: self.gate.blocked_until(key) for name, key in self._keys.items()}


def _base(scope: Scope) -> float:
    """The slowest rate that rejections taught; ``inf`` for none."""
    base = inf
    for limiter in scope.limiters.values():
        learned = limiter.learned().base
        if learned is not None and learned < base:
            base = learned
    return base
