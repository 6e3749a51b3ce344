"""Serving: who of those that wait goes now, and what keeps the others.

Asks the scopes of a request, takes from all of them or from none, and lets lanes wait at the scope that refused. It
decides nothing about requests that are not admitted in the end, nor what an attempt taught; the gate does.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .values import Grant

if TYPE_CHECKING:
    from .lane import Lane
    from .leases import LeaseBook
    from .scope import Passage, Refusal, Scope
    from .values import Lease, Request
    from .waiting import WaitingRoom

__all__ = ["Serving"]


class Serving:
    """The step from waiting to holding a lease, for one gate."""

    __slots__ = ("_leases", "_room")

    def __init__(self, room: WaitingRoom, leases: LeaseBook) -> None:
        self._room = room
        self._leases = leases

    def refusal(self, lane: Lane, request: Request, now: float, newcomer: bool = False) -> Refusal | None:
        """What keeps ``request`` from going now: the first scope without room, widest first; None if all have room.

        A ``newcomer`` is kept by those that wait already, too.
        """
        if newcomer:
            for scope in lane.scopes:
                if scope.parked:
                    return scope.waiters_ahead
        for scope in lane.scopes:
            if scope.bare and scope.cooldown.open:
                continue
            law = scope.concurrency
            if law is not None and now >= law.looks_at:  # as Scope.advance
                law.advance(now, scope.in_flight, scope.parked > 0)
            refusal = scope.refusal(request, now)
            if refusal is not None:
                return refusal
        return None

    def admit(self, lane: Lane, request: Request, waited_s: float, now: float) -> Lease:
        """Take what ``request`` needs in every scope. The caller has seen ``refusal`` return None at this ``now``."""
        passages: list[Passage] = []
        for scope in lane.scopes:
            if scope.bare and scope.cooldown.quiet:
                scope.in_flight += 1
                passages.append(scope.place)
            else:
                passages.append(scope.admit(request, now))
        law, stamp = lane.scopes[-1].concurrency, passages[-1].stamp
        limit = inf if law is None else law.limit
        epoch = 0 if stamp is None else stamp.generation
        lane.admitted += 1
        return self._leases.open(lane.name, request, now, waited_s, limit, epoch, tuple(passages))

    def park(self, lane: Lane, refusal: Refusal, now: float) -> None:
        """Let ``lane`` wait where it was refused, and ask again if that changed something."""
        room, scope, lane.reason = self._room, refusal.scope, refusal.reason
        if lane.parked_at is not scope:
            if lane.parked_at is not None:
                room.unpark(lane)
            room.park(lane, scope)
            if refusal.next_at < scope.asks_at:
                room.ask_at(scope, refusal.next_at)
        law, due = scope.concurrency, False
        if law is not None and now >= law.looks_at:
            limit = law.limit
            law.advance(now, scope.in_flight, demand=True)  # it counts the time in which somebody waits
            due = law.limit > limit  # a probe, that only waited for somebody who needs it
        first = refusal is scope.waiters_ahead and scope.first() is lane  # and nobody asked the scope itself
        if due or first:
            self.pump(scope, now)

    def pump(self, scope: Scope, now: float, lane: Lane | None = None) -> None:
        """Serve the lanes that wait for ``scope`` in turn until it refuses. ``lane`` is one that may wait there: where
        it is the only one, nobody needs to ask which it is."""
        refusal: Refusal | None = None
        room = self._room
        while scope.parked:
            if lane is None or scope.parked > 1 or lane.parked_at is not scope:  # else it is the only one, still
                lane = scope.first()
                assert lane is not None
            if refusal is None:
                if lane.deadlines:
                    room.expire(lane, now)
                waiter = lane.head() if lane.lone is None else lane.lone
                if waiter is None:
                    scope.advance(now)
                    room.unpark(lane)
                elif (refusal := self.refusal(lane, waiter.request, now)) is None:
                    room.seat(waiter, now)
                    lease = self.admit(lane, waiter.request, now - waiter.since, now)
                    grant = Grant()
                    grant.waiter = waiter.id
                    grant.lease = lease
                    room.effects.append(grant)
                elif refusal.scope is not scope:
                    scope.advance(now)  # until now somebody waited for it
                    self.park(lane, refusal, now)
            if refusal is not None and refusal.scope is scope:
                lane.reason = refusal.reason
                if refusal.next_at != scope.asks_at:
                    room.ask_at(scope, refusal.next_at)
                return
            # Most of the time that was the only place: then the next one need not be looked at.
            refusal = scope.full(now) if scope.parked else None

    def thinned(self, lane: Lane, now: float) -> None:
        """Waiters left ``lane``: its new head may have room where the old one had none."""
        self._room.arm(lane, now)
        parked = lane.parked_at
        if parked is None:
            return
        if not lane.queued:
            self._room.unpark(lane)
        self.pump(parked, now)
