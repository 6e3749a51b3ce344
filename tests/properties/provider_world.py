"""A watched gate, the tasks that use it, and a provider that may lie: one discrete-event simulation in virtual time.

``run`` lets time pass with a standing backlog of waiters; ``recover`` is the liveness phase: the provider turns honest
and the world measures how long the gate takes to use it, and what share of requests it still wastes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import TYPE_CHECKING

from headgate.admission.headers import parse_feedback
from headgate.admission.values import Lease, Request
from headgate.values import Outcome, ResourceKey, Usage
from tests.properties.lying_provider import WALL_0, Answer, Mood, Provider
from tests.properties.watched_gate import WatchedGate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headgate.admission.scope_limits import ScopeLimits

BACKLOG = 2
"""Waiters that are always there while there is demand."""

REJECTIONS = (Outcome.RATE_LIMITED, Outcome.OVERLOADED)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of one resource: ``backlog`` waiters at any time, each for so many tokens."""

    backlog: int = BACKLOG
    tokens: int = 10
    timeout_s: float = inf


@dataclass(slots=True, eq=False)
class Attempt:
    lease: Lease
    provider: Provider
    answer: Answer


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the liveness phase found. Times in seconds from the moment the provider turned honest, ``inf`` if never."""

    to_half_s: float
    to_most_s: float
    sent: int
    rejected: int

    @property
    def rejected_share(self) -> float:
        return self.rejected / max(1, self.sent)


class World:
    """Resources behind one gate, each with its provider."""

    def __init__(
        self,
        limits: Mapping[str, ScopeLimits],
        resources: list[ResourceKey],
        *,
        seed: int = 0,
        now: float = 1000.0,
        mood: Mood | None = None,
    ) -> None:
        self.rng = Random(seed)
        self.gate = WatchedGate(dict(limits), resources, now=now, seed=seed + 1)
        self.providers = {str(name): Provider(self.rng, mood or Mood(slots=32), now) for name in resources}
        self.demand: dict[str, Demand] = {}
        self.flying: dict[int, Attempt] = {}
        self.sends_left = 0.0
        self.sent = 0
        self.rejected = 0
        self._events: list[tuple[float, int, Attempt]] = []
        self._number = 0

    @property
    def now(self) -> float:
        return self.gate.now

    def change(self, mood: Mood, resource: str | None = None) -> None:
        """The providers (or one) behave differently from now on."""
        for name, provider in self.providers.items():
            if resource is None or name == resource:
                provider.change(mood, self.now)

    # Time

    def run(self, seconds: float, demand: Mapping[str, Demand] | None = None, *, sends: float = 400) -> None:
        """Let ``seconds`` pass; new requests are made while ``sends`` are left."""
        if demand is not None:
            self.demand = dict(demand)
        self.sends_left = sends
        end = self.now + seconds
        while True:
            self.press()
            at = self.gate.next_at(end)
            if self._events and self._events[0][0] <= at:
                at, _, attempt = heappop(self._events)
                self.gate.pass_to(max(at, self.now))
                self._launch()
                if attempt.lease.id in self.flying:
                    self._answered(attempt)
            elif at >= end:
                self.gate.pass_to(end)
                self._launch()
                return
            else:
                self.gate.pass_to(at)
                self._launch()

    def press(self) -> None:
        """Keep the backlog up. Without sends left the waiters stay, and nobody new comes."""
        if self.gate.closed:
            return
        for name, demand in self.demand.items():
            while self.sends_left > 0 and self.gate.backlog(name) < demand.backlog:
                self.sends_left -= 1
                if not self.submit(name, demand.tokens, demand.timeout_s):
                    break  # denied for good: whoever wants more asks again later

    def submit(self, resource: str, tokens: int, timeout_s: float = inf, *, flow: str = "", priority: int = 1) -> bool:
        """Ask for one request; False if it was denied."""
        key = ResourceKey.parse(resource)
        request = Request(key, input_tokens=tokens, flow=flow, priority=priority)
        queued = self.gate.submit(request, timeout_s=timeout_s, bid=timeout_s == inf)
        self._launch()
        return queued

    def attempt(self, resource: str, tokens: int) -> None:
        """Ask for one request that does not wait."""
        self.gate.try_acquire(Request(ResourceKey.parse(resource), input_tokens=tokens))
        self._launch()

    def end_now(self, number: int, outcome: Outcome, *, sent: bool = True) -> None:
        """The attempt is cancelled, or its answer comes early and is ``outcome``."""
        attempt = self.flying.pop(number)
        if attempt.answer.served:
            attempt.provider.hold(-1, self.now)
        self.gate.release(attempt.lease, outcome, sent=sent)
        self._launch()

    def _launch(self) -> None:
        """Send whatever was granted since the last call."""
        grants = self.gate.grants
        while grants:
            lease = grants.pop()
            provider = self.providers[lease.resource]
            answer = provider.arrive(self.now)
            self.sent += 1
            attempt = self.flying[lease.id] = Attempt(lease, provider, answer)
            self._number += 1
            heappush(self._events, (self.now + answer.after_s, self._number, attempt))

    def _answered(self, attempt: Attempt) -> None:
        lease, answer = attempt.lease, attempt.answer
        del self.flying[lease.id]
        if answer.served:
            attempt.provider.hold(-1, self.now)
        feedback = None
        if answer.status is not None:
            feedback = parse_feedback(answer.headers, wall_now=WALL_0 + self.now, status=answer.status)
            if answer.kind is not None or answer.account_wide:
                feedback = replace(feedback, kind=answer.kind or feedback.kind, account_wide=answer.account_wide)
            usage = self._usage(attempt) if answer.served else None
            self.gate.report(lease, feedback, usage)
            self._launch()
        self.rejected += answer.outcome in REJECTIONS
        failed = answer.outcome is not Outcome.SUCCESS
        self.gate.release(lease, answer.outcome, feedback=feedback if failed else None)
        self._launch()

    def _usage(self, attempt: Attempt) -> Usage:
        factor = attempt.provider.mood.usage_factor
        return Usage(int(attempt.lease.request.input_tokens * factor), 0)

    # Liveness

    def recover(
        self,
        honest: Mood,
        resource: str,
        *,
        demand: Demand | None = None,
        within_s: float,
        half: float = 0.5,
        most: float = 0.9,
        window_s: float = 60.0,
        stop: bool = True,
    ) -> Recovery:
        """The provider turns honest: how long until ``resource`` uses ``half``, and ``most``, of what it can?

        The time counts from when the last request of before has ended.
        """
        for name in self.gate.gate.scopes():
            self.gate.unblock(name)
        self.change(honest)
        self.demand = {}
        while self.flying:
            self.run(max(0.001, min(60.0, max(at for at, _, _ in self._events) - self.now)), sends=0)
        provider = self.providers[resource]
        fair = self.fair_share(honest, resource)
        began, to_half, to_most = self.now, inf, inf
        sent, rejected = self.sent, self.rejected
        while self.now - began < within_s:
            before = provider.worked(self.now) if honest.slots < inf else float(provider.accepted)
            self.run(window_s, {resource: demand or Demand()}, sends=inf)
            after = provider.worked(self.now) if honest.slots < inf else float(provider.accepted)
            share = (after - before) / (fair * window_s)
            if share >= half:
                to_half = min(to_half, self.now - began)
            if share >= most:
                to_most = min(to_most, self.now - began)
                if stop:
                    break
        return Recovery(to_half, to_most, self.sent - sent, self.rejected - rejected)

    def fair_share(self, honest: Mood, resource: str) -> float:
        """What an honest provider and the user's own limits allow: busy slots, or requests a second without slots."""
        lease_scopes = ResourceKey.parse(resource).scopes()
        scopes = [self.gate.gate.scopes()[name] for name in lease_scopes]
        slots = min([honest.slots, *[scope.limits.maximum or inf for scope in scopes]])
        per_s = min([honest.per_minute, *[scope.limits.requests_per_minute or inf for scope in scopes]]) / 60.0
        if honest.slots == inf:
            return min(per_s, slots / honest.latency_s)
        return min(slots, per_s * honest.latency_s)
