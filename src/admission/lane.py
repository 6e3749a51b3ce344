"""The waiters of one resource: who is first, and whose queue time is over.

Decides the order inside one resource: by priority, then fairly between flows, then first come, first served. It does
not know whether there is room. A queue deadline counts only time in which the resource is open: the lane keeps a
clock of its own that stands still during a cooldown.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from .fair_queue import FairQueue
from .slot_time import SlotTime
from .values import DenyReason

if TYPE_CHECKING:
    from ..values import Outcome, Usage
    from .scope import Scope
    from .values import Request

__all__ = ["Lane", "Waiter"]

_NO_CAPACITY = DenyReason.NO_CAPACITY  # named once: looking up an enum's member is slow
_SPARE_ENTRIES = 64  # how much rubbish the lines and the deadlines may hold before they are swept
_SPARE_RANKS = 8  # how many priorities are kept when nobody of theirs waits: more are hardly in use

USAGES_KEPT = 32
"""Twice what an estimate needs: a silent token limit shows itself by a rejection, and is measured in tokens at once."""


@dataclass(slots=True, eq=False, init=False)
class Waiter:
    """One request in the queue. ``expires`` is on the open-time clock of its lane; a bid has no deadline."""

    id: int
    request: Request
    lane: Lane
    since: float
    expires: float
    bid: bool
    queued: bool


class _Rank:
    """The flows of one priority, each a first-come-first-served line. The first of a line is always queued; behind it
    may stand some who left."""

    __slots__ = ("fair", "lines")

    def __init__(self) -> None:
        self.fair: FairQueue[str] = FairQueue()
        self.lines: dict[str, deque[Waiter]] = {}


class Lane:
    """The queue of one resource and the scopes that it must pass, widest first. ``queued`` counts who waits."""

    __slots__ = (
        "_gone",
        "_marked_at",
        "_open_s",
        "_order",
        "_ranks",
        "_usages",
        "admitted",
        "bids",
        "blocked_until",
        "deadlines",
        "estimates",
        "limited",
        "lone",
        "name",
        "parked_at",
        "queued",
        "reason",
        "scopes",
        "shares",
        "slot_time",
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
        # Only where a scope limits tokens are they estimated. Until then the latest usages are kept for that case.
        self.token_limited = any(scope.token_limited for scope in scopes)
        self.queued = 0
        self._usages: deque[tuple[Request, Outcome, Usage]] = deque(maxlen=USAGES_KEPT)
        self.bids = 0
        self.blocked_until = -inf
        # What turns cost, from when on two flows have waited side by side.
        self.slot_time: SlotTime[str] | None = None
        self.shares = any(scope.slot_time is not None for scope in scopes)
        """Whether it is to be told for how long its leases were held."""
        # Who waits alone needs no order: it stands in no line until somebody joins it.
        self.lone: Waiter | None = None
        self._ranks: dict[int, _Rank] = {}
        self._order: list[_Rank] = []  # highest priority first
        self._gone = 0  # how many who left still stand in a line
        # (open time, number, waiter): the first is always queued, later ones may have left.
        self.deadlines: list[tuple[float, int, Waiter]] = []
        self._open_s = 0.0
        self._marked_at = now
        self.sync(now)

    def push(self, waiter: Waiter) -> bool:
        """Put ``waiter`` at the end of its flow. Whether it is the first of its priority."""
        first = True
        if not self.queued:
            self.lone = waiter
        else:
            if self.lone is not None:
                self._line_up(self.lone)
                self.lone = None
            first = self._line_up(waiter)
        self.queued += 1
        self.bids += waiter.bid
        if waiter.expires < inf:
            heappush(self.deadlines, (waiter.expires, waiter.id, waiter))
        return first

    def _line_up(self, waiter: Waiter) -> bool:
        request = waiter.request
        rank = self._ranks.get(request.priority)
        if rank is None:
            rank = self._add_rank(request.priority)
        flow, lines = request.flow, rank.lines
        line = lines.get(flow)
        if line is not None:
            line.append(waiter)
            return False
        if lines and self.slot_time is None:
            self.slot_time, self.shares = SlotTime(), True
        lines[flow] = deque((waiter,))
        return rank.fair.add(flow, request.weight)

    def head(self) -> Waiter | None:
        """The waiter whose turn it is."""
        if self.lone is not None:
            return self.lone
        for rank in self._order:
            flow = rank.fair.head()
            if flow is not None:
                return rank.lines[flow][0]
        return None

    def serve(self, waiter: Waiter) -> None:
        """Take out ``waiter``, the head, because it was admitted; its flow pays for it."""
        if waiter is self.lone:
            self.lone = None
        else:
            rank, flow = self._ranks[waiter.request.priority], waiter.request.flow
            line = rank.lines[flow]
            assert line[0] is waiter, "only the first of a flow is served"
            cost = 1.0
            if self.slot_time is not None and self.reason is _NO_CAPACITY:
                cost = self.slot_time.turn(flow)
            if len(line) > 1 and self._shorten(line):
                rank.fair.charge(flow, cost)
            else:
                del rank.lines[flow]
                rank.fair.remove(flow, cost)
        waiter.queued = False
        self.queued -= 1
        self.bids -= waiter.bid
        if waiter.expires < inf:
            self._tidy_deadlines()

    def drop(self, waiter: Waiter) -> None:
        """Take ``waiter`` out at no cost to its flow."""
        if waiter is self.lone:
            self.lone = None
        else:
            rank, flow = self._ranks[waiter.request.priority], waiter.request.flow
            line = rank.lines[flow]
            if line[0] is not waiter:
                self._gone += 1
            elif not self._shorten(line):
                del rank.lines[flow]
                rank.fair.remove(flow)
        waiter.queued = False
        self.queued -= 1
        self.bids -= waiter.bid
        if waiter.expires < inf:
            self._tidy_deadlines()
        if self._gone > self.queued + _SPARE_ENTRIES:
            self._sweep()

    def held(self, flow: str, held_s: float) -> None:
        """A lease of ``flow`` came back after ``held_s`` seconds. To be told where slots are shared."""
        if self.slot_time is not None:
            self.slot_time.learn(flow, held_s)
        for scope in self.scopes:
            if scope.slot_time is not None:
                scope.slot_time.learn(self, held_s)

    def overdue(self, now: float) -> Waiter | None:
        """A waiter whose deadline has passed, earliest first; it is still queued."""
        if not self.deadlines:
            return None
        expires, _, waiter = self.deadlines[0]
        # In the steps of `open_time`: a rest that only one of them sees would be waited for, for ever.
        if now + (expires - (self._open_s + (now - self._marked_at))) > now:
            return None  # not even if it was open all the time
        # A rest that is lost in rounding has passed: a timer set for it would be due now, for ever.
        return waiter if now + (expires - self.open_time(now)) <= now else None

    def next_deadline(self, now: float) -> float:
        """When the next waiter expires if nothing changes, in seconds (monotonic)."""
        if not self.deadlines:
            return inf
        return max(now, self.blocked_until) + max(0.0, self.deadlines[0][0] - self.open_time(now))

    def expires_first(self, waiter: Waiter) -> bool:
        """Whether ``waiter`` has the earliest deadline of all. There must be one."""
        return self.deadlines[0][2] is waiter

    def open_time(self, now: float) -> float:
        """Seconds for which this resource has been open since it was registered."""
        return self._open_s + max(0.0, now - max(self._marked_at, self.blocked_until))

    def sync(self, now: float) -> None:
        """Read the cooldowns again. To be called whenever one of them changed, in the same instant."""
        self._open_s = self.open_time(now)
        self._marked_at = now
        self.blocked_until = max(scope.cooldown.blocked_until for scope in self.scopes)

    def estimated(self, request: Request) -> Request:
        """``request`` with the tokens that it will probably use. To be asked where they are limited."""
        return self.estimates.reserve(request, self.scopes)

    def used(self, request: Request, outcome: Outcome, usage: Usage) -> None:
        """An attempt of ``request`` ended; ``usage`` is what it reported."""
        if self.token_limited:
            self.estimates.learn(request, outcome, usage)
        else:
            self._usages.append((request, outcome, usage))

    def limit_tokens(self) -> None:
        """A scope has come to limit tokens: estimate them from now on, also for those who wait already.

        The latest usages are what is known to begin with.
        """
        self.token_limited = True
        while self._usages:
            self.estimates.learn(*self._usages.popleft())
        for waiter in self._standing():
            waiter.request = self.estimated(waiter.request.stated or waiter.request)

    def footprint(self) -> int:
        """Entries held, rubbish included."""
        flows = sum(1 + rank.fair.footprint() for rank in self._order)
        held = self.queued + self._gone + len(self.deadlines) + len(self._usages)
        return held + flows + self.estimates.footprint()

    def check(self) -> None:
        """Assert that the counts, the lines, the fair queues and the deadlines tell the same story."""
        self.estimates.check()
        assert self.token_limited == any(scope.token_limited for scope in self.scopes)
        standing = self._standing()
        assert self.lone is None or standing == [self.lone], "somebody waits beside the lone one"
        queued = [waiter for waiter in standing if waiter.queued]
        assert len(queued) == self.queued
        assert len(standing) - len(queued) == self._gone
        assert self.bids == sum(waiter.bid for waiter in queued)
        for rank in self._ranks.values():
            rank.fair.check()
            assert len(rank.lines) == len(rank.fair)
            assert all(flow in rank.fair and line[0].queued for flow, line in rank.lines.items())
        timed = [waiter for _, _, waiter in self.deadlines if waiter.queued]
        assert len(timed) == sum(waiter.expires < inf for waiter in queued)
        assert not timed or self.deadlines[0][2].queued
        assert (self.parked_at is not None) == bool(self.queued)
        known = [self.slot_time, *(scope.slot_time for scope in self.scopes)]
        assert self.shares == any(one is not None for one in known)
        if self.parked_at is not None:
            assert self is self.parked_at.lone or self in self.parked_at.waiting

    def _standing(self) -> list[Waiter]:
        """Everybody in a line, those who left too, and who waits alone."""
        in_lines = [waiter for rank in self._ranks.values() for line in rank.lines.values() for waiter in line]
        return in_lines if self.lone is None else [self.lone, *in_lines]

    def _add_rank(self, priority: int) -> _Rank:
        if len(self._ranks) >= _SPARE_RANKS:  # who is empty owes nothing, and is as good as new
            self._ranks = {one: rank for one, rank in self._ranks.items() if rank.lines}
        rank = self._ranks[priority] = _Rank()
        self._order = [self._ranks[one] for one in sorted(self._ranks, reverse=True)]
        return rank

    def _shorten(self, line: deque[Waiter]) -> bool:
        """Take the first out of ``line`` and those behind it who left before. Whether anybody is left."""
        line.popleft()
        while line and not line[0].queued:
            line.popleft()
            self._gone -= 1
        return bool(line)

    def _tidy_deadlines(self) -> None:
        """Somebody who has one left."""
        deadlines = self.deadlines
        while deadlines and not deadlines[0][2].queued:
            heappop(deadlines)
        if len(deadlines) > 2 * self.queued + _SPARE_ENTRIES:
            self.deadlines = sorted(entry for entry in deadlines if entry[2].queued)

    def _sweep(self) -> None:
        for rank in self._ranks.values():
            for flow, line in rank.lines.items():
                rank.lines[flow] = deque([waiter for waiter in line if waiter.queued])
        self._gone = 0
