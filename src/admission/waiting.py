"""The waiting room of a gate: who waits where, until when, and how waiting ends without a lease.

Keeps lanes parked at the scope that blocks them, one timer for each scope and lane, and the outbox of effects. It does
not decide who is admitted; the gate does.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..values import Pressure
from .timers import Timers
from .values import Denied, DenyReason, Effect, Expire, Refuse

if TYPE_CHECKING:
    from .lane import Lane, Waiter
    from .scope import Scope

__all__ = ["WaitingRoom", "pressure_of"]

_NO_CAPACITY = DenyReason.NO_CAPACITY  # named once: looking up an enum's member is slow


class WaitingRoom:
    """The waiters of one gate. ``effects`` is what became of them, in order, until the gate takes it out."""

    __slots__ = ("_waiters", "effects", "timers")

    def __init__(self) -> None:
        self.timers: Timers[Scope | Lane] = Timers()
        self._waiters: dict[int, Waiter] = {}
        self.effects: list[Effect] = []

    def __len__(self) -> int:
        return len(self._waiters)

    # Coming and going

    def enter(self, waiter: Waiter, now: float) -> bool:
        """``waiter`` joins the queue of its lane. Whether it is the first of its priority there."""
        lane = waiter.lane
        self._waiters[waiter.id] = waiter
        first = lane.push(waiter)
        if lane.deadlines and lane.expires_first(waiter):
            self.arm(lane, now)
        return first

    def leave(self, number: int) -> Waiter | None:
        """Forget a waiter at its own wish; None if it does not wait any more."""
        waiter = self._waiters.pop(number, None)
        if waiter is not None:
            waiter.lane.drop(waiter)
        return waiter

    def seat(self, waiter: Waiter, now: float) -> None:
        """``waiter`` is about to be admitted: its flow and its lane pay for the turn."""
        lane = waiter.lane
        was_first = bool(lane.deadlines) and lane.expires_first(waiter)
        del self._waiters[waiter.id]
        lane.serve(waiter)
        scope = lane.parked_at
        assert scope is not None
        cost = 1.0
        if scope.slot_time is not None and lane.reason is _NO_CAPACITY:
            cost = scope.slot_time.turn(lane)
        if not lane.queued:
            if scope.lone is lane:
                scope.lone = None
            else:
                scope.waiting.remove(lane, cost)
            lane.parked_at = None
            scope.parked -= 1
            if not scope.parked and scope.asks_at < inf:
                self.ask_at(scope, inf)
        elif scope.lone is lane:
            scope.lone_turn = cost
        else:
            scope.waiting.charge(lane, cost)
        if was_first:
            self.arm(lane, now)

    def refuse(self, waiter: Waiter, reason: DenyReason, now: float) -> None:
        """``waiter`` can never be served."""
        del self._waiters[waiter.id]
        waiter.lane.drop(waiter)
        if not waiter.lane.queued:
            self.unpark(waiter.lane)
        denied = Denied(reason, waiter.lane.name)
        self.effects.append(Refuse(waiter.id, waiter.request, now - waiter.since, denied))

    def refuse_oversized(self, scope: Scope, now: float) -> None:
        """Refuse those whose request ``scope`` can never let pass under its new limits."""
        for waiter in list(self._waiters.values()):
            stated = waiter.request.stated or waiter.request
            if scope in waiter.lane.scopes and scope.too_large(stated, now) is not None:
                self.refuse(waiter, DenyReason.TOO_LARGE, now)

    def refuse_all(self, reason: DenyReason, now: float) -> None:
        """Nobody will be served any more."""
        for waiter in list(self._waiters.values()):
            self.refuse(waiter, reason, now)

    def expire(self, lane: Lane, now: float) -> None:
        """Send those away whose queue deadline has passed (A3)."""
        if (waiter := lane.overdue(now)) is None:
            return
        while waiter is not None:
            del self._waiters[waiter.id]
            lane.drop(waiter)
            waited_s = now - waiter.since
            self.effects.append(Expire(waiter.id, waiter.request, waited_s, pressure_of(lane, now)))
            waiter = lane.overdue(now)
        self.arm(lane, now)

    # Places

    def park(self, lane: Lane, scope: Scope) -> None:
        """``lane``, which waits nowhere, waits at ``scope`` from now on."""
        lane.parked_at = scope
        scope.parked += 1
        if scope.parked == 1:
            scope.lone, scope.lone_turn = lane, 0.0
            return
        alone = scope.lone
        if alone is not None:
            scope.lone = None
            scope.waiting.add(alone)
            if scope.lone_turn:
                scope.waiting.charge(alone, scope.lone_turn)
        scope.waiting.add(lane)
        if scope.slot_time is None:
            scope.share_slots()

    def unpark(self, lane: Lane) -> None:
        """``lane`` waits nowhere."""
        scope = lane.parked_at
        if scope is not None:
            if scope.lone is lane:
                scope.lone = None
            else:
                scope.waiting.remove(lane)
            lane.parked_at = None
            scope.parked -= 1
            if not scope.parked and scope.asks_at < inf:
                self.ask_at(scope, inf)

    def ask_at(self, scope: Scope, at: float) -> None:
        """Time alone may let in whoever is first at ``scope`` at ``at``; ``inf``: nobody, or it cannot."""
        scope.asks_at = at
        self.timers.set(scope, at)

    def sync(self, scope: Scope, now: float) -> None:
        """The cooldown of ``scope`` may just have changed: let its lanes' clocks stand or run."""
        for lane in scope.lanes:
            before = lane.blocked_until
            lane.sync(now)
            if lane.queued and lane.blocked_until != before:
                self.arm(lane, now)

    def arm(self, lane: Lane, now: float) -> None:
        """The deadlines of ``lane``, or its clock, may have changed."""
        self.timers.set(lane, lane.next_deadline(now))


def pressure_of(lane: Lane, now: float) -> Pressure:
    """One look at ``lane``."""
    return Pressure(
        resource=lane.name,
        in_flight=lane.scopes[-1].in_flight,
        limit=min([scope.limit for scope in lane.scopes]),
        waiting=lane.queued - lane.bids,
        bids=lane.bids,
        blocked_s=max(0.0, lane.blocked_until - now),
        reason=lane.reason.value if lane.queued and lane.reason is not None else None,
        rate_limited=lane.limited,
        admitted=lane.admitted,
    )
