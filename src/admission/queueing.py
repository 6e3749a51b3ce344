"""How many requests a server that queues, and never rejects, is worth having at once: the knee of its throughput.

Decides a level: a bound of the limit of :mod:`headgate.admission.concurrency`, for servers (self-hosted vLLM, SGLang)
that batch what they are given and let the rest wait inside, without any answer that says so. Opt-in: at a hosted
provider latency is mostly the length of the output.

Theory of operation
-------------------
By Little's law the throughput at a level is the requests in flight times the units that they got, over the time that
they took: both sums are over the same requests, so that long outputs make both larger, and a few dozen completions
tell levels apart, where counting completions a second would need hundreds.

Levels are compared in pairs. UP: half as much again; it stays if throughput gained a tenth, else the level before is
the best known. HOLD: now and then a smaller step up, or down, in turns, ever more rarely while nothing is found; and at
once when the throughput of the level itself changed. DOWN: a third less, as long as that costs nothing.
So the level is never above one step over the last one that gained, and every step is taken back or confirmed within
one measurement. A measurement counts requests sent at that level, while it was in use, from one latency after it was
set on, for at least another latency.

Prior art: hill climbing and the gradient limiters, which compare latencies with the least ever seen, and so never
forget a good day; this one compares two levels measured one after the other.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .law_values import Stamp

__all__ = ["STEP", "TRIAL", "Knee", "Phase"]

STEP: Final = 1.5
"""A search goes up or down by this factor."""

TRIAL: Final = 1.25
"""A level that holds is compared with one this factor away."""

GAINED: Final = 0.235
"""A step up is worth it if throughput grows by this power of it: a tenth for half as many requests again."""

LOST: Final = 0.12
"""A step down is free if throughput falls by no more than this power of it (3 % for a fifth less): below what a step up
must gain, or levels would alternate."""

CHANGED: Final = 1.25
"""The throughput of one and the same level changed by this factor: it is another server now."""

COMPLETIONS: Final = 16
COMPLETIONS_BARE: Final = 150
"""So many requests make a measurement; more where nobody says how many tokens they were: then completions a second are
counted, and the length of the output is all noise."""

LATENCIES: Final = 1.0
LATENCIES_BARE: Final = 2.0
"""A new level is measured after so many mean latencies, and for at least one."""

REST_LATENCIES: Final = 4.0
REST_MAX_LATENCIES: Final = 16.0
"""A level rests so long before it is compared again; twice as long after each time that confirmed it. A server that
got twice as fast looks no different from below its old knee: only a step up shows it."""

DOWN_EVERY: Final = 4
"""One comparison in so many is with a lower level: it costs throughput, one with a higher level only patience."""

USED_SHARE: Final = 0.9
"""Requests sent with fewer in flight than this share of the level say nothing about it."""

LATENCY_WEIGHT: Final = 0.05
"""Weight of the latest request in the mean latency."""


class Phase(StrEnum):
    """What the search for the knee is doing."""

    UP = "up"
    HOLD = "hold"
    DOWN = "down"


class Knee:
    """``level`` requests at once, between ``minimum`` and ``maximum``. Times in seconds, monotonic."""

    # The mutable state is exactly these slots.
    __slots__ = (
        "_bare",
        "_base",
        "_base_units_per_s",
        "_count",
        "_in_flight",
        "_known",
        "_latency_s",
        "_measure_at",
        "_rest",
        "_rests_until",
        "_since",
        "_took_s",
        "_trials",
        "_units",
        "level",
        "maximum",
        "minimum",
        "phase",
    )

    def __init__(self, *, minimum: int, start: float, maximum: int) -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.level = min(float(maximum), max(float(minimum), start))
        self.phase = Phase.UP
        self._base = 0.0  # the best known level; 0 before the first
        self._base_units_per_s = 0.0
        self._latency_s = 0.0
        self._rest = REST_LATENCIES
        self._rests_until = 0.0
        self._trials = 0
        self._known = False
        self._since = 0.0  # the level was set then
        self._measure_at = 0.0
        self._bare = 0
        self._count = 0
        self._took_s = 0.0
        self._units = 0.0
        self._in_flight = 0

    def set_bounds(self, minimum: int, maximum: int, now: float) -> None:
        """Other bounds from now on. A level outside of them starts again from the bound."""
        at_bound = self.level == self.maximum
        self.minimum = minimum
        self.maximum = maximum
        if at_bound or not minimum <= self.level <= maximum:
            self._base = 0.0
            self.phase = Phase.UP
            self._set(min(float(maximum), max(float(minimum), self.level)), now)

    def completed(self, stamp: Stamp, now: float, units: float | None) -> bool:
        """A request was answered after ``units`` of work (tokens), or nobody knows how many. Whether the level
        moved."""
        if units is None and self._known:
            return False
        if units is not None and not self._known:
            self._known = True
            self._base = 0.0  # it was counted in requests
            self._begin(max(now, self._measure_at))
        if units is not None and units <= 0.0:
            return False  # an error, or nothing to do: no time of the server's
        latency_s = now - stamp.sent_at
        self._latency_s += (LATENCY_WEIGHT if self._latency_s else 1.0) * (latency_s - self._latency_s)
        if now < self._measure_at or stamp.others + 1 < USED_SHARE * int(self.level):
            return False
        if units is None:
            return self._counted(now)
        if stamp.sent_at < self._since:
            return False
        self._count += 1
        self._took_s += latency_s
        self._units += units
        self._in_flight += stamp.others + 1
        if self._count < COMPLETIONS or now - self._measure_at < self._latency_s or not self._took_s or not self._units:
            return False
        return self._measured(self._in_flight / self._count * self._units / self._took_s, now)

    def _counted(self, now: float) -> bool:
        """One more completion of unknown work."""
        if now < self._since + LATENCIES_BARE * self._latency_s:
            return False
        if not self._bare:
            self._bare = 1
            self._measure_at = now
            return False
        self._bare += 1
        if self._bare <= COMPLETIONS_BARE or now <= self._measure_at + self._latency_s:
            return False
        return self._measured((self._bare - 1) / (now - self._measure_at), now)

    def check(self) -> None:
        """Assert every invariant."""
        assert self.minimum <= self.level <= self.maximum, f"level {self.level} out of bounds"
        assert self._base == 0.0 or self.level <= STEP * max(self._base, self.minimum) + 1.0, (
            "far above what ever gained"
        )
        assert REST_LATENCIES <= self._rest <= REST_MAX_LATENCIES

    def _measured(self, units_per_s: float, now: float) -> bool:
        """The present level does ``units_per_s``. Whether it moved."""
        before = self.level
        self._judge(units_per_s, now)
        return self.level != before

    def _judge(self, units_per_s: float, now: float) -> None:
        if self._base == 0.0:
            self._step(units_per_s, STEP, Phase.UP, now)
        elif self.level > self._base:
            if units_per_s >= self._base_units_per_s * (self.level / self._base) ** GAINED:
                self._rest = REST_LATENCIES
                self._step(units_per_s, STEP, Phase.UP, now)
            else:
                self._confirmed(now)
        elif self.level < self._base:
            if units_per_s >= self._base_units_per_s * (self.level / self._base) ** LOST:
                self._rest = REST_LATENCIES
                self._step(units_per_s, 1.0 / STEP, Phase.DOWN, now)
            else:
                self._confirmed(now)
        else:
            self._held(units_per_s, now)

    def _held(self, units_per_s: float, now: float) -> None:
        was = self._base_units_per_s
        if was and not was / CHANGED <= units_per_s <= was * CHANGED:
            self._rest = REST_LATENCIES
            up = units_per_s > was
            self._step(units_per_s, STEP if up else 1.0 / STEP, Phase.UP if up else Phase.DOWN, now)
        elif now >= self._rests_until:
            self._trials += 1
            self._step(units_per_s, TRIAL if self._trials % DOWN_EVERY else 1.0 / TRIAL, Phase.HOLD, now)
        else:
            self._begin(now)

    def _step(self, units_per_s: float, factor: float, phase: Phase, now: float) -> None:
        """The present level is the base; go on to the one ``factor`` away."""
        self._base = self.level
        self._base_units_per_s = units_per_s
        level = self.level * factor
        level = max(self.level + 1.0, level) if factor > 1.0 else min(self.level - 1.0, level)
        level = min(float(self.maximum), max(float(self.minimum), float(round(level))))
        if level == self.level:
            self._confirmed(now)
            return
        self.phase = phase
        self._set(level, now)

    def _confirmed(self, now: float) -> None:
        """The base is the better one."""
        self._hold(self._base, self._base_units_per_s, now)
        self._rest = min(REST_MAX_LATENCIES, 2.0 * self._rest)

    def _hold(self, level: float, units_per_s: float, now: float) -> None:
        level = min(float(self.maximum), max(float(self.minimum), level))
        self.phase = Phase.HOLD
        self._base = level
        self._base_units_per_s = units_per_s
        self._rests_until = now + self._rest * self._latency_s
        self._set(level, now)

    def _set(self, level: float, now: float) -> None:
        self.level = level
        self._since = now
        self._begin(now + LATENCIES * self._latency_s)

    def _begin(self, at: float) -> None:
        self._measure_at = at
        self._bare = 0
        self._count = 0
        self._took_s = 0.0
        self._units = 0.0
        self._in_flight = 0
