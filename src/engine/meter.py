"""Where the time went and what was spent, per resource: a handful of numbers, updated in O(1).

At any instant each resource is in exactly one :class:`Pace`, so the seconds of its row add up to the run's. Decides
nothing; the report reads it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from ..reports.histogram import BOUNDS_S, BUCKETS
from ..values import Outcome, Usage

__all__ = ["Meter", "Pace", "ResourceMeter"]


_SUCCESS = Outcome.SUCCESS


class Pace(StrEnum):
    """What sets the pace of a resource at one instant."""

    LATENCY = "provider latency"
    REQUEST_LIMIT = "request limit"
    TOKEN_LIMIT = "token limit"
    CONCURRENCY_LIMIT = "concurrency limit"
    COOLDOWN = "cooldown"
    HELD_BACK = "held back"
    STORE = "store"
    WORKERS = "workers"
    BUDGET = "budget"
    NO_READY_WORK = "no ready work"


@dataclass(slots=True)
class ResourceMeter:
    """One resource of one run: attempts by outcome, tokens, seconds by pace, the integral of its limit.

    ``latencies`` counts successful attempts by how long they took, see :mod:`headgate.reports.histogram`.
    """

    pace: Pace = Pace.NO_READY_WORK
    since: float = 0.0
    in_flight: int = 0
    peak: int = 0
    busy_s: float = 0.0
    queued_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=lambda: defaultdict[Outcome, int](int))
    seconds: dict[Pace, float] = field(default_factory=dict[Pace, float])
    limit_s: float = 0.0
    limited_s: float = 0.0
    latencies: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    @property
    def requests(self) -> int:
        """Attempts that came to an end."""
        return sum(self.outcomes.values())

    @property
    def usage(self) -> Usage:
        """The tokens of all attempts that came to an end."""
        return Usage(self.input_tokens, self.output_tokens)

    @property
    def mean_limit(self) -> float | None:
        """The concurrency limit averaged over the time in which there was one."""
        return self.limit_s / self.limited_s if self.limited_s else None

    def started(self, waited_s: float) -> None:
        """An attempt got its lease after ``waited_s`` in the local queue."""
        self.in_flight += 1
        if self.in_flight > self.peak:
            self.peak = self.in_flight
        self.queued_s += waited_s

    def ended(self, outcome: Outcome, held_s: float, usage: Usage | None) -> None:
        """An attempt gave its lease back after ``held_s``."""
        self.in_flight -= 1
        self.busy_s += held_s
        self.outcomes[outcome] += 1
        if outcome is _SUCCESS:
            self.latencies[bisect_left(BOUNDS_S, held_s)] += 1
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens

    def turn(self, pace: Pace, limit: float, now: float) -> None:
        """From ``now`` on ``pace`` sets the speed."""
        passed = now - self.since
        if passed > 0:
            self.seconds[self.pace] = self.seconds.get(self.pace, 0.0) + passed
            if limit != inf:
                self.limit_s += limit * passed
                self.limited_s += passed
            self.since = now
        self.pace = pace


class Meter:
    """The meters of a run by resource."""

    __slots__ = ("resources", "started_at")

    def __init__(self, now: float) -> None:
        self.started_at = now
        self.resources: dict[str, ResourceMeter] = {}

    def of(self, resource: str) -> ResourceMeter:
        """The meter of ``resource``, made on first use."""
        meter = self.resources.get(resource)
        if meter is None:
            meter = self.resources[resource] = ResourceMeter(since=self.started_at)
        return meter
