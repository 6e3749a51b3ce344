"""The waiters of one resource: who is first, and whose queue time is over.

Decides the order inside one resource: by priority, then fairly between flows, then first come, first served. It does
not know whether there is room. A queue deadline counts only time in which the resource is open: the lane keeps a
clock of its own that stands still during a cooldown.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from .fair_queue import FairQueue

if TYPE_CHECKING:
    from ..values import Outcome, Usage
    from .scope import Scope
    from .values import DenyReason, Request

__all__ = ["Lane", "Waiter"]


@dataclass(slots=True, eq=False)
class Waiter:
    """One request in the queue. ``expires`` is on the open-time clock of its lane; a bid has no deadline."""

    id: int
    request: Request
    lane: Lane
    since: float
    expires: float
    bid: bool


class _Rank:
    """The flows of one priority, each a first-come-first-served queue."""

    __slots__ = ("fair", "flows")

    def __init__(self) -> None:
        self.fair: FairQueue[str] = FairQueue()
        self.flows: dict[str, OrderedDict[int, Waiter]] = {}


class Lane:
    """The queue of one resource and the scopes that it must pass, widest first."""

    __slots__ = (
        "_deadlines",
        "_marked_at",
        "_open_s",
        "_order",
        "_ranks",
        "admitted",
        "bids",
        "blocked_until",
        "estimates",
        "limited",
        "name",
        "parked_at",
        "queued",
        "reason",
        "scopes",
        "token_limited",
    )

    def __init__(self, name: str, scopes: tuple[Scope, ...], now: float) -> None:
        self.name = name
        self.scopes = scopes
        self.parked_at: Scope | None = None
        self.reason: DenyReason | None = None  # why the first waiter waits, as of the last look
        self.admitted = 0
        self.limited = 0
        self.estimates = scopes[-1].estimates
        # Whether a scope limits tokens, only then are they estimated; kept by the scopes.
        self.token_limited = any(scope.token_limited for scope in scopes)
        self.queued: dict[int, Waiter] = {}
        self.bids = 0
        self.blocked_until = -inf
        self._ranks: dict[int, _Rank] = {}
        self._order: list[int] = []
        self._deadlines: list[tuple[float, int]] = []
        self._open_s = 0.0
        self._marked_at = now
        self.sync(now)

    def push(self, waiter: Waiter) -> None:
        """Put ``waiter`` at the end of its flow."""
        request = waiter.request
        rank = self._ranks.get(request.priority)
        if rank is None:
            rank = self._ranks[request.priority] = _Rank()
            self._order = sorted(self._ranks, reverse=True)
        rank.flows.setdefault(request.flow, OrderedDict())[waiter.id] = waiter
        rank.fair.add(request.flow, request.weight)
        self.queued[waiter.id] = waiter
        self.bids += waiter.bid
        if waiter.expires < inf:
            heappush(self._deadlines, (waiter.expires, waiter.id))

    def head(self) -> Waiter | None:
        """The waiter whose turn it is."""
        for priority in self._order:
            rank = self._ranks[priority]
            flow = rank.fair.head()
            if flow is not None:
                return next(iter(rank.flows[flow].values()))
        return None

    def serve(self, waiter: Waiter) -> None:
        """Take ``waiter`` out because it was admitted; its flow pays for it."""
        self._ranks[waiter.request.priority].fair.charge(waiter.request.flow)
        self.drop(waiter)

    def drop(self, waiter: Waiter) -> None:
        """Take ``waiter`` out at no cost to its flow."""
        del self.queued[waiter.id]
        self.bids -= waiter.bid
        rank, flow = self._ranks[waiter.request.priority], waiter.request.flow
        queue = rank.flows[flow]
        del queue[waiter.id]
        if not queue:
            del rank.flows[flow]
            rank.fair.remove(flow)
        if len(self._deadlines) > 2 * len(self.queued) + 64:
            self._deadlines = sorted(entry for entry in self._deadlines if entry[1] in self.queued)

    def overdue(self, now: float) -> Waiter | None:
        """A waiter whose deadline has passed, earliest first; it is still queued."""
        opened = self.open_time(now)
        # A rest that is lost in rounding has passed: a timer set for it would be due now, for ever.
        while self._deadlines and now + (self._deadlines[0][0] - opened) <= now:
            waiter = self.queued.get(heappop(self._deadlines)[1])
            if waiter is not None:
                return waiter
        return None

    def next_deadline(self, now: float) -> float:
        """When the next waiter expires if nothing changes, in seconds (monotonic)."""
        while self._deadlines and self._deadlines[0][1] not in self.queued:
            heappop(self._deadlines)
        if not self._deadlines:
            return inf
        return max(now, self.blocked_until) + max(0.0, self._deadlines[0][0] - self.open_time(now))

    def open_time(self, now: float) -> float:
        """Seconds for which this resource has been open since it was registered."""
        return self._open_s + max(0.0, now - max(self._marked_at, self.blocked_until))

    def sync(self, now: float) -> None:
        """Read the cooldowns again. To be called whenever one of them changed, in the same instant."""
        self._open_s = self.open_time(now)
        self._marked_at = now
        self.blocked_until = max(scope.cooldown.blocked_until for scope in self.scopes)

    def estimated(self, request: Request) -> Request:
        """``request`` with the tokens that it will probably use, where they are limited."""
        return self.estimates.reserve(request, self.scopes) if self.token_limited else request

    def used(self, request: Request, outcome: Outcome, usage: Usage | None) -> None:
        """An attempt of ``request`` ended; ``usage`` is what it reported."""
        if self.token_limited and usage is not None:
            self.estimates.learn(request, outcome, usage)

    def footprint(self) -> int:
        """Entries held, rubbish included."""
        return len(self.queued) + len(self._deadlines) + self.estimates.footprint()

    def check(self) -> None:
        """Assert that the index, the flows and the fair queues tell the same story."""
        self.estimates.check()
        assert self.token_limited == any(scope.token_limited for scope in self.scopes)
        total = 0
        for rank in self._ranks.values():
            rank.fair.check()
            assert set(rank.flows) == {flow for flow in rank.flows if flow in rank.fair}
            total += sum(len(queue) for queue in rank.flows.values())
        assert total == len(self.queued)
        assert self.bids == sum(waiter.bid for waiter in self.queued.values())
        assert (self.parked_at is not None) == bool(self.queued)
        if self.parked_at is not None:
            assert self.name in self.parked_at.waiting
