"""May this request go out now: one decision over every scope that it passes, all or nothing.

Theory of operation
-------------------
A *resource* (``openai/gpt-x``) has a *lane* of waiters and passes two or three *scopes* (account, model, domain). A
request is admitted when no scope refuses it; only then is anything taken. Otherwise its lane is *parked* at the
first scope that refused. Every scope keeps its parked lanes in a fair queue, so a scope that opens serves them in
turn and stops at the first that it refuses itself; a lane refused by another scope moves there. So each event costs
the scopes of one lease, never the number of waiters, and a blocked resource is in nobody's way.

Nobody overtakes: while a lane is parked at a scope, whoever comes later and passes that scope queues up behind it,
also when its own request is smaller (A4, T8).

A scheduler's wish to start another task is a *bid*: a waiter without a deadline and of low priority, so that
requests of running tasks go first. What time alone may change (a cooldown's end, a refill, a deadline, a growing
limit) is one timer per scope and lane, and ``next_tick`` is the earliest of them.

The gate is synchronous, takes ``now`` (seconds, monotonic) and awaits nothing. What happens to waiters is put into
an outbox that its shell empties after each call (``take_effects``).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..values import Feedback, Outcome, Pressure, ResourceKey, Rng, Usage
from .lane import Lane, Waiter
from .learning import believable, learn, observe, settle, succeed
from .leases import LeaseBook
from .registry import Registry
from .scope import Refusal, Scope
from .serving import Serving
from .values import Denied, DenyReason, Effect, Lease, ReleaseResult, Request
from .waiting import WaitingRoom, pressure_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .scope_limits import ScopeLimits

__all__ = ["Gate"]

# Named once: looking up an enum's member is slow, and these are asked for every request.
_RELEASED = ReleaseResult.RELEASED
_SUCCESS = Outcome.SUCCESS
_LIMITED = frozenset({Outcome.RATE_LIMITED, Outcome.OVERLOADED})


class Gate:
    """The admission decision of one process. See the module's theory of operation."""

    def __init__(self, *, rng: Rng, generation: int = 1) -> None:
        self._registry = Registry(rng)
        self._lanes = self._registry.named
        self._leases = LeaseBook(generation)
        self._room = WaitingRoom()
        self.timers = self._room.timers
        """What ``tick`` waits for, to be read only."""
        self.effects = self._room.effects
        """What became of waiters, in order, for the shell to perform and clear."""
        self._serving = Serving(self._room, self._leases)
        self._closed = False
        self.closings = 0
        """Counts what may have put a resource that ``is_open`` into a cooldown."""

    # Set-up

    def register(self, resource: ResourceKey, limits: Mapping[str, ScopeLimits], now: float) -> None:
        """Make ``resource`` known. ``limits`` are by scope name; a scope without any has no limit of its own.

        A scope that another resource brought along keeps its limits if it has any; registering twice does nothing.
        """
        if not self._registry.knows(resource):
            self._registry.add(resource, limits, now)

    def alias(self, resource: ResourceKey, target: ResourceKey, limits: ScopeLimits | None, now: float) -> None:
        """Let ``resource`` be another name of ``target``: they share one lane at the minimum of their caps (A9)."""
        lane = self._registry.lane(target)
        assert lane is not None, f"register {target} before its alias {resource}"
        if self._registry.knows(resource):
            return
        self._registry.alias(resource, lane)
        if limits is not None:
            leaf = lane.scopes[-1]
            self.set_limits(leaf.name, leaf.limits.tightest(limits), now)

    def set_limits(self, scope: str, limits: ScopeLimits, now: float) -> None:
        """Replace the limits of ``scope`` while running; KeyError if no resource has that scope."""
        found = self._registry.scopes[scope]
        found.set_limits(limits, now)
        self._room.refuse_oversized(found, now)
        self._serving.pump(found, now)

    def knows(self, resource: ResourceKey) -> bool:
        """Whether ``resource`` was registered."""
        return self._registry.knows(resource)

    # Requests

    def try_acquire(self, request: Request, now: float) -> Lease | Denied:
        """Admit ``request`` now or say why not. It never overtakes a waiter and leaves no trace when denied."""
        lane = self._lane_for(request, now)
        if isinstance(lane, Denied):
            return lane
        if lane.token_limited:
            request = lane.estimated(request)
        refusal = self._serving.refusal(lane, request, now, True)
        if refusal is None:
            return self._serving.admit(lane, request, 0.0, now)
        return Denied(refusal.reason, request.resource.name, _wait_s(refusal, now))

    def submit(
        self, request: Request, now: float, *, timeout_s: float = inf, bid: bool = False
    ) -> Lease | Denied | int:
        """Admit ``request`` now, or queue it and return the waiter's number, or deny it for good.

        ``timeout_s`` bounds the wait, counted only while the resource is open. With a timeout of 0 nothing is ever
        queued: the answer is a denial with ``queue_timeout``. A bid has no deadline.
        """
        lane = self._lane_for(request, now)
        if isinstance(lane, Denied):
            return lane
        if lane.token_limited:
            request = lane.estimated(request)
        parked_at = lane.parked_at
        if parked_at is None:
            refusal = self._serving.refusal(lane, request, now, True)
            if refusal is None:
                return self._serving.admit(lane, request, 0.0, now)
        else:
            refusal = parked_at.waiters_ahead  # as `refusal` says of whichever scope is the first with waiters
        if timeout_s <= 0 and not bid:
            return Denied(DenyReason.QUEUE_TIMEOUT, lane.name, _wait_s(refusal, now))
        expires = inf if bid or timeout_s == inf else lane.open_time(now) + timeout_s
        waiter = Waiter()
        waiter.id = self._leases.number()
        waiter.request = request
        waiter.lane = lane
        waiter.since = now
        waiter.expires = expires
        waiter.bid = bid
        waiter.queued = True
        first = self._room.enter(waiter, now)
        if parked_at is None:
            self._serving.park(lane, refusal, now)
        elif first and lane.head() is waiter and parked_at.first() is lane:
            self._serving.pump(parked_at, now)  # it goes before the others of its lane, and may need less
        return waiter.id

    def withdraw(self, waiter: int, now: float) -> bool:
        """Forget a waiter. False if it was served, expired or refused before: a granted lease must be released."""
        found = self._room.leave(waiter)
        if found is None:
            return False
        self._serving.thinned(found.lane, now)
        return True

    def report(self, lease: Lease, now: float, *, feedback: Feedback | None = None, usage: Usage | None = None) -> None:
        """Take in what a response said while its lease is still held (A8)."""
        if not self._leases.is_out(lease):
            return
        if usage is not None:
            lease.usage = believable(usage) or lease.usage
        if feedback is not None:
            observe(lease, feedback, now)
            for scope in self._registry.lanes[lease.resource].scopes:
                if scope.parked:
                    self._serving.pump(scope, now)

    def release(
        self,
        lease: Lease,
        outcome: Outcome,
        now: float,
        *,
        feedback: Feedback | None = None,
        usage: Usage | None = None,
        sent: bool = True,
    ) -> ReleaseResult:
        """Give ``lease`` back; what its attempt taught is learned. Never raises, never counts twice (A2).

        ``sent=False`` says that nothing went out: every reservation, the request itself too, is returned.
        """
        result = self._leases.close(lease)
        if result is not _RELEASED:
            return result
        if self.timers.earliest <= now:
            self.tick(now)
        lane = self._registry.lanes[lease.resource]
        for passage in lease.passages:
            scope = passage.scope
            law = scope.concurrency
            if law is not None and (now >= law.looks_at or outcome is not _SUCCESS):
                law.advance(now, scope.in_flight, scope.parked > 0)
            scope.in_flight -= 1
        if lane.shares:
            lane.held(lease.request.flow, now - lease.acquired_at)
        used = lease.usage if usage is None else believable(usage) or lease.usage
        if used is not None or outcome is not _SUCCESS or not sent:  # else it used what it reserved
            settle(lease, outcome, used, now, sent=sent)
        if sent:
            if used is not None:
                lane.used(lease.request, outcome, used)
            if outcome is _SUCCESS and feedback is None:
                succeed(lease, now, used)
            else:
                self._learn(lane, lease, outcome, feedback, now, used)
        for scope in lane.scopes:
            if scope.parked:
                self._serving.pump(scope, now, lane)
        return _RELEASED

    def block(self, scope: str, until: float, now: float) -> None:
        """Close ``scope`` until ``until`` (may be ``inf``); it reopens with one canary, then gradually."""
        found = self._registry.scopes[scope]
        self.closings += 1
        found.cooldown.block(until, now)
        self._room.sync(found, now)
        self._serving.pump(found, now)

    def unblock(self, scope: str, now: float) -> None:
        """End a ``block``; a cooldown that the provider asked for stays."""
        found = self._registry.scopes[scope]
        found.cooldown.unblock(now)
        self._room.sync(found, now)
        self._serving.pump(found, now)

    def shutdown(self, now: float) -> None:
        """Refuse all waiters and every later request. Leases that are out may still be released."""
        self._closed = True
        self._room.refuse_all(DenyReason.SHUTDOWN, now)

    # Time

    def tick(self, now: float) -> None:
        """Do what time has made due: expire waiters, serve those for whom something opened."""
        while (due := self.timers.pop_due(now)) is not None:
            if isinstance(due, Scope):
                due.asks_at = inf
                self._serving.pump(due, now)
            else:
                self._room.expire(due, now)
                self._serving.thinned(due, now)

    def next_tick(self, now: float) -> float:
        """When ``tick`` has something to do if nothing else happens before; ``inf`` for never."""
        return self.timers.earliest

    def take_effects(self) -> list[Effect]:
        """Empty ``effects`` and return what was in them. A grant holds whether or not it is read."""
        effects = self.effects[:]
        self.effects.clear()
        return effects

    # Views

    def pressure(self, resource: ResourceKey, now: float) -> Pressure:
        """One look at ``resource``, which must be known."""
        return pressure_of(self._known(resource), now)

    def waiting_for(self, resource: ResourceKey) -> DenyReason | None:
        """Why the first waiter of ``resource`` waits; None when nobody does."""
        lane = self._known(resource)
        return lane.reason if lane.queued else None

    def blocked_until(self, resource: ResourceKey) -> float:
        """The end of the latest cooldown over ``resource`` (seconds, monotonic; -inf when it never had one)."""
        return self._known(resource).blocked_until

    def is_open(self, resource: ResourceKey) -> bool:
        """Whether no cooldown, nor what is left of one, concerns ``resource``: ``is_cooling`` need not be asked."""
        return all(scope.cooldown.open for scope in self._known(resource).scopes)

    def is_cooling(self, resource: ResourceKey, now: float) -> bool:
        """Whether a cooldown lets no request of ``resource`` out now, or waits to see what becomes of one."""
        for scope in self._known(resource).scopes:
            cooldown = scope.cooldown
            if not cooldown.open and cooldown.allowance(now, scope.in_flight, scope.limit) == 0.0:
                return True
        return False

    def scope_of(self, resource: ResourceKey) -> str:
        """The name of the narrowest scope of ``resource``, aliases resolved."""
        return self._known(resource).scopes[-1].name

    def capacity(self, resource: ResourceKey) -> float:
        """How many requests of ``resource`` may be in flight at most as things stand."""
        return min([scope.limit for scope in self._known(resource).scopes])

    def scopes(self) -> Mapping[str, Scope]:
        """Every scope by name, to look at."""
        return self._registry.scopes

    @property
    def closed(self) -> bool:
        """Whether it was shut down."""
        return self._closed

    def leases(self) -> int:
        """How many leases are out."""
        return len(self._leases)

    def check(self) -> None:
        """Assert every invariant of the gate and its parts (A1)."""
        self._registry.check(self._leases.leases())
        assert sum(lane.queued for lane in self._registry.lanes.values()) == len(self._room)
        assert all(self.timers.at(scope) == scope.asks_at for scope in self._registry.scopes.values())
        self._leases.check()

    def check_conserving(self, now: float) -> None:
        """Assert that nobody waits who could go (A10). What is due at ``now`` must have been done."""
        self._registry.check_conserving(now)

    def footprint(self) -> int:
        """How many entries its queues, timers and histories hold, rubbish included: bounded whatever has passed."""
        return self._registry.footprint() + self.timers.footprint() + self._leases.footprint()

    # Decisions

    def _lane_for(self, request: Request, now: float) -> Lane | Denied:
        """Do what is due, then find the lane of ``request``, or deny it for good."""
        if self.timers.earliest <= now:
            self.tick(now)
        lane = self._lanes.get(request.resource.name)
        if self._closed or lane is None:
            reason = DenyReason.SHUTDOWN if self._closed else DenyReason.UNKNOWN_RESOURCE
            return Denied(reason, request.resource.name)
        for scope in lane.scopes:
            only = scope.only_requests
            if (only is None or not only.free) and scope.limiters and scope.too_large(request, now) is not None:
                return Denied(DenyReason.TOO_LARGE, lane.name)
        return lane

    # Learning

    def _learn(
        self, lane: Lane, lease: Lease, outcome: Outcome, feedback: Feedback | None, now: float, used: Usage | None
    ) -> None:
        if outcome in _LIMITED:
            lane.limited += 1
        for scope in learn(lease, outcome, feedback, now, used):
            self.closings += 1
            self._room.sync(scope, now)

    def _known(self, resource: ResourceKey) -> Lane:
        lane = self._registry.lane(resource)
        assert lane is not None, f"{resource} was never registered"
        return lane


def _wait_s(refusal: Refusal, now: float) -> float | None:
    return None if refusal.next_at == inf else max(0.0, refusal.next_at - now)
