"""Who is served when: the gate against the same rules written plainly, over random comings and goings.

The gate keeps heaps, leaves out queues in which only one waits, and asks a scope as few questions as it can. The plain
one below sorts lists and asks everything anew. Limits are fixed, so time and the laws play no part.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

import hypothesis.strategies as st
from hypothesis import given

from headgate.admission.gate import Gate
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.slot_time import SlotTime
from headgate.admission.values import Grant, Lease, Request
from headgate.values import Outcome, ResourceKey

K = TypeVar("K")

RESOURCES = [ResourceKey.parse(name) for name in ("one/a", "one/b", "one/b:embedding", "two/a")]
SCOPES = sorted({scope for resource in RESOURCES for scope in resource.scopes()})
STEPS = 300
WEIGHTS = {"x": 1.0, "y": 2.0, "z": 4.0}


class Turns(Generic[K]):
    """Start-time fair queueing by its definition."""

    def __init__(self) -> None:
        self.virtual_time = 0.0
        self.added = 0
        self.waiting: dict[K, tuple[float, int, float]] = {}
        self.owed: dict[K, float] = {}

    def add(self, key: K, weight: float = 1.0) -> None:
        if key not in self.waiting:
            self._enter(key, max(self.virtual_time, self.owed.pop(key, 0.0)), weight)

    def first(self) -> K | None:
        return min(self.waiting, key=self.waiting.__getitem__, default=None)

    def serve(self, key: K, *, more: bool, cost: float) -> None:
        start, _, weight = self.waiting.pop(key)
        self.virtual_time = max(self.virtual_time, start)
        if more:
            self._enter(key, start + cost / weight, weight)
        else:
            self._owe(key, start + cost / weight)

    def leave(self, key: K) -> None:
        self._owe(key, self.waiting.pop(key)[0])

    def _enter(self, key: K, start: float, weight: float) -> None:
        self.added += 1
        self.waiting[key] = (start, self.added, weight)

    def _owe(self, key: K, finish: float) -> None:
        if not self.waiting:
            self.owed.clear()
        elif finish > self.virtual_time:
            self.owed[key] = finish


@dataclass
class PlainLane:
    """The waiters of one resource: flows by priority, lines of numbers by flow."""

    scopes: tuple[str, ...]
    ranks: dict[int, Turns[str]] = field(default_factory=dict[int, Turns[str]])
    lines: dict[tuple[int, str], list[int]] = field(default_factory=dict[tuple[int, str], list[int]])
    at: str | None = None
    for_slots: bool = False  # what it waits for, as of the last look
    slot_time: SlotTime[str] | None = None

    def push(self, number: int, priority: int, flow: str) -> None:
        others = {one for (rank, one), line in self.lines.items() if line and rank == priority} - {flow}
        if others and self.slot_time is None:
            self.slot_time = SlotTime()
        self.lines.setdefault((priority, flow), []).append(number)
        self.ranks.setdefault(priority, Turns()).add(flow, WEIGHTS[flow])

    def first(self) -> tuple[int, str, int] | None:
        for priority in sorted(self.ranks, reverse=True):
            flow = self.ranks[priority].first()
            if flow is not None:
                return priority, flow, self.lines[priority, flow][0]
        return None

    def serve(self) -> int:
        turn = self.first()
        assert turn is not None
        priority, flow, number = turn
        line = self.lines[priority, flow]
        line.pop(0)
        cost = self.slot_time.turn(flow) if self.slot_time is not None and self.for_slots else 1.0
        self.ranks[priority].serve(flow, more=bool(line), cost=cost)
        return number

    def drop(self, number: int) -> None:
        for (priority, flow), line in self.lines.items():
            if number in line:
                line.remove(number)
                if not line:
                    self.ranks[priority].leave(flow)


class PlainGate:
    """The rules of decision 0004 for fixed limits, without a thought for what they cost."""

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.in_flight = dict.fromkeys(SCOPES, 0)
        self.lanes = {resource.name: PlainLane(resource.scopes()) for resource in RESOURCES}
        self.parked: dict[str, Turns[str]] = {scope: Turns() for scope in SCOPES}
        self.slot_time: dict[str, SlotTime[str]] = {}
        self.granted: list[int] = []

    def submit(self, number: int, resource: str, priority: int, flow: str) -> bool:
        """Whether it goes at once."""
        lane = self.lanes[resource]
        ahead = next((scope for scope in lane.scopes if self.parked[scope].waiting), None)
        place = ahead or self.refusing(lane)
        if place is None:
            self.take(lane)
            return True
        lane.push(number, priority, flow)
        turn = lane.first()
        if lane.at is None:
            self.park(resource, place, for_slots=ahead is None)
            if ahead and self.parked[place].first() == resource:
                self.pump(place)
        elif self.parked[lane.at].first() == resource and turn is not None and turn[2] == number:
            self.pump(lane.at)
        return False

    def withdraw(self, number: int, resource: str) -> None:
        lane = self.lanes[resource]
        lane.drop(number)
        place = lane.at
        assert place is not None
        if lane.first() is None:
            lane.at = None
            self.parked[place].leave(resource)
        self.pump(place)

    def release(self, resource: str, flow: str, held_s: float) -> None:
        lane = self.lanes[resource]
        for scope in lane.scopes:
            self.in_flight[scope] -= 1
            if scope in self.slot_time:
                self.slot_time[scope].learn(resource, held_s)
        if lane.slot_time is not None:
            lane.slot_time.learn(flow, held_s)
        for scope in lane.scopes:
            self.pump(scope)

    def retune(self, scope: str, limit: int) -> None:
        self.limits[scope] = limit
        self.pump(scope)

    def full(self, scope: str) -> bool:
        return self.in_flight[scope] >= self.limits.get(scope, inf)

    def refusing(self, lane: PlainLane) -> str | None:
        return next((scope for scope in lane.scopes if self.full(scope)), None)

    def take(self, lane: PlainLane) -> None:
        for scope in lane.scopes:
            self.in_flight[scope] += 1

    def park(self, resource: str, place: str, *, for_slots: bool) -> None:
        lane = self.lanes[resource]
        lane.for_slots = for_slots
        if lane.at is not None:
            self.parked[lane.at].leave(resource)
        lane.at = place
        self.parked[place].add(resource)
        if len(self.parked[place].waiting) > 1:
            self.slot_time.setdefault(place, SlotTime())

    def pump(self, scope: str) -> None:
        looked = False
        while (resource := self.parked[scope].first()) is not None:
            lane = self.lanes[resource]
            if looked and self.full(scope):
                lane.for_slots = True
                return  # the next one need not be looked at
            looked = True
            place = self.refusing(lane)
            if place == scope:
                lane.for_slots = True
                return
            if place is not None:
                self.park(resource, place, for_slots=True)
                continue
            self.granted.append(lane.serve())
            self.take(lane)
            if lane.first() is None:
                lane.at = None
            known = self.slot_time.get(scope)
            cost = known.turn(resource) if known is not None and lane.for_slots else 1.0
            self.parked[scope].serve(resource, more=lane.at is not None, cost=cost)


def script(dice: random.Random) -> tuple[dict[str, int], list[tuple[object, ...]]]:
    """Limits and steps. Mostly one lane and two flows, so that who left often comes back while others wait."""
    limits = {scope: dice.randint(1, 4) for scope in SCOPES if scope == "one/a" or dice.random() < 0.5}
    busy = RESOURCES[dice.randrange(len(RESOURCES))]
    steps: list[tuple[object, ...]] = []
    for _ in range(STEPS):
        what = dice.choices(["submit", "release", "withdraw", "retune"], [10, 10, 1, 0.3])[0]
        resource = busy if dice.random() < 0.7 else dice.choice(RESOURCES)
        flow, priority = dice.choice("xxyyz"), dice.choice([0, 0, 0, 1])
        steps.append((what, resource, flow, priority, dice.randrange(1000), dice.choice(SCOPES)))
    return limits, steps


@given(st.integers(0, 2**32))
def test_waiters_are_served_in_the_order_of_the_plain_rules(seed: int) -> None:
    """A4, A10: every request goes when the plain rules let it go, and in their order."""
    limits, steps = script(random.Random(seed))
    gate, plain = Gate(rng=random.Random(0)), PlainGate(dict(limits))
    for resource in RESOURCES:
        gate.register(resource, {scope: ScopeLimits(maximum=limit) for scope, limit in limits.items()}, 0.0)
    held: list[Lease] = []
    waiting: dict[int, str] = {}
    for now, step in enumerate(steps):
        match step:
            case ("submit", ResourceKey() as resource, str(flow), int(priority), int(pick), _):
                request = Request(resource, flow=flow, weight=WEIGHTS[flow], priority=priority)
                answer = gate.submit(request, float(now), bid=pick % 2 == 0)
                number = answer if isinstance(answer, int) else -1
                assert plain.submit(number, resource.name, priority, flow) == isinstance(answer, Lease)
                if isinstance(answer, Lease):
                    held.append(answer)
                else:
                    waiting[number] = resource.name
            case ("release", _, _, _, int(pick), _) if held:
                lease = held.pop(pick % len(held))
                gate.release(lease, Outcome.SUCCESS, float(now))
                plain.release(lease.resource, lease.request.flow, now - lease.acquired_at)
            case ("withdraw", _, _, _, int(pick), _) if waiting:
                number = sorted(waiting)[pick % len(waiting)]
                assert gate.withdraw(number, float(now))
                plain.withdraw(number, waiting.pop(number))
            case ("retune", _, _, _, int(pick), str(scope)) if scope in limits:
                gate.set_limits(scope, ScopeLimits(maximum=1 + pick % 4), float(now))
                plain.retune(scope, 1 + pick % 4)
            case _:
                continue
        grants = [effect for effect in gate.take_effects() if isinstance(effect, Grant)]
        assert [grant.waiter for grant in grants] == plain.granted
        held.extend(grant.lease for grant in grants)
        for grant in grants:
            del waiting[grant.waiter]
        plain.granted.clear()
        gate.check()
        gate.check_conserving(float(now))
        assert {name: scope.in_flight for name, scope in gate.scopes().items()} == plain.in_flight
