"""How often a concurrency law may ask for one slot more, and what it knows of its surroundings for that.

Decides the time between probes. They get rarer while nothing is found, and their price is bounded: the
rejections that they cost stay below a share of the completions, the pauses that a provider asks for below a
share of the time. Whether a probe is due for other reasons is decided in
:mod:`headgate.admission.concurrency`.

Two things change the bounds. *Contended*: rejections came as a surprise twice, so others use the same limit;
then all of them should ask equally often, whatever their own throughput. *Fallen*: the limit was much higher
a while ago.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from .law_values import (
    CONTENDED_APART_S,
    CONTENDED_S,
    CREEP_LATENCIES,
    CREEP_MAX_S,
    CREEP_MIN_S,
    CREEP_SMALL,
    FALLEN_PROBE_CAP_S,
    FALLEN_REJECTED_SHARE,
    FALLEN_S,
    GAIN,
    PROBE_CAP_S,
    PROBE_COST_WEIGHT,
    PROBE_HINTS,
    PROBE_JITTER,
    PROBE_MAX_AT_LEAST_S,
    PROBE_MIN_S,
    RECOVERY_MAX_S,
    RECOVERY_MIN_S,
    REJECTED_SHARE,
    Mode,
)
from .throughput import Throughput

if TYPE_CHECKING:
    from ..values import Rng

__all__ = ["Probing", "ProbingState"]


class ProbingState(NamedTuple):
    """A plan of probes as it was, without the throughput, which goes on."""

    every_s: float
    next_at: float
    cost: float
    rejections: int
    hint_s: float
    surprises: tuple[float, float]
    fell_from: float
    fell_at: float


class Probing:
    """The plan of probes: ``every_s`` seconds apart, the next at ``next_at`` (seconds, monotonic).

    ``throughput`` counts the answers; ``creeps`` says that a hold may grow by itself.
    """

    # The mutable state is exactly these slots.
    __slots__ = (
        "_cost",
        "_creep_per_s",
        "_fell_at",
        "_fell_from",
        "_hint_s",
        "_rejections",
        "_rng",
        "_surprises",
        "creeps",
        "every_s",
        "next_at",
        "throughput",
    )

    def __init__(self, *, rng: Rng) -> None:
        self.every_s = PROBE_MIN_S
        self.next_at = -inf
        self._rng = rng
        self.throughput = Throughput()
        self.creeps = False  # whether a hold may have grown ever since: contended once is not contended now
        self._creep_per_s = 0.0
        self._cost = 1.0  # rejections for each probe, smoothed
        self._rejections = 0
        self._hint_s = 0.0
        self._surprises = (-inf, -inf)  # the last two, far enough apart to be two
        self._fell_from = 0.0
        self._fell_at = -inf

    def recall(self, every_s: float) -> None:
        """Begin with the distance of an earlier plan, and the first probe as soon as there is use for it."""
        self.every_s = min(PROBE_CAP_S, max(PROBE_MIN_S, every_s))

    def per_s(self, now: float) -> float:
        """Answers a second, lately."""
        return self.throughput.per_s(now)

    def rejected(self, retry_after_s: float | None) -> None:
        """A burst of rejections began; ``retry_after_s`` is the pause it asked for."""
        self._hint_s = retry_after_s or 0.0

    def surprised(self, now: float) -> None:
        """A rejection came while the limit was only held."""
        if now - self._surprises[1] > CONTENDED_APART_S:
            self._surprises = (self._surprises[1], now)

    def contended(self, now: float) -> bool:
        """Whether others seem to use the same limit."""
        return self._surprises[0] > now - CONTENDED_S

    def creep_per_s(self, now: float) -> float:
        """Slots a second that a hold may grow by; 0 unless contended."""
        return self._creep_per_s if self.contended(now) else 0.0

    def fell(self, limit: float, now: float) -> None:
        """``limit`` is about to be cut. The height of the first of several cuts is remembered."""
        if not self._fallen(limit, now):
            self._fell_from, self._fell_at = limit, now

    def lost(self, limit: float, now: float) -> float | None:
        """What the limit was before it fell, if that is not long ago and not yet made good."""
        return self._fell_from if self._fallen(limit, now) else None

    def ended(self, mode: Mode, in_flight: int, level: float, rejections: int) -> None:
        """What grew was rejected at ``in_flight``: a probe or climb from ``level``, or a ramp."""
        if mode is Mode.CLIMB and in_flight > GAIN * level:
            self.gained(rejections)
        elif mode in (Mode.PROBE, Mode.CLIMB):
            self.failed(rejections)
        elif mode is Mode.RAMP:
            self.begin(rejections)

    def failed(self, rejections: int) -> None:
        """The probe found nothing: the next one may wait twice as long. ``rejections`` is their number
        ever."""
        self._count(rejections)
        self.every_s = min(PROBE_CAP_S, 2.0 * self.every_s)

    def gained(self, rejections: int) -> None:
        """The probe found much: there may be more."""
        self._count(rejections)
        self.every_s = PROBE_MIN_S

    def begin(self, rejections: int) -> None:
        """Nothing is known: ask soon."""
        self._rejections = rejections
        self.every_s = PROBE_MIN_S

    def plan(self, limit: float, now: float) -> None:
        """Fix the moment of the next probe."""
        if self.contended(now):
            self._creep_per_s = 1.0 / self._slot_s(limit, now)
            self.creeps = True
            return
        self.every_s = max(PROBE_MIN_S, min(self.every_s, self._max_s(limit, now)))
        self.next_at = now + self.every_s * self._rng.uniform(1.0 - PROBE_JITTER, 1.0 + PROBE_JITTER)

    def recovery_s(self, limit: float, now: float) -> float:
        """How long growing back after a cut to ``limit`` should take: half of what a probe may have to
        wait."""
        return min(RECOVERY_MAX_S, max(RECOVERY_MIN_S, self._max_s(limit, now) / 2.0))

    def state(self) -> ProbingState:
        """The plan as it is now."""
        return ProbingState(
            self.every_s,
            self.next_at,
            self._cost,
            self._rejections,
            self._hint_s,
            self._surprises,
            self._fell_from,
            self._fell_at,
        )

    def restore(self, state: ProbingState, retracted: int) -> None:
        """Back to ``state``; the ``retracted`` rejections since then were no price of a probe."""
        self.every_s = state.every_s
        self.next_at = state.next_at
        self._cost = state.cost
        self._rejections = state.rejections + retracted
        self._hint_s = state.hint_s
        self._surprises = state.surprises
        self._fell_from = state.fell_from
        self._fell_at = state.fell_at

    def check(self) -> None:
        """Assert every invariant."""
        assert PROBE_MIN_S <= self.every_s <= PROBE_CAP_S
        assert self._surprises[0] <= self._surprises[1]
        assert self._cost > 0.0
        assert self.creeps or not self._creep_per_s
        self.throughput.check()

    def _slot_s(self, limit: float, now: float) -> float:
        per_s = self.throughput.per_s(now)
        latency_s = limit / per_s if per_s > 0.0 else inf
        slot_s = min(CREEP_MAX_S, max(CREEP_MIN_S, CREEP_LATENCIES * latency_s))
        return slot_s * max(1.0, CREEP_SMALL / limit) if limit > 0.0 else slot_s * CREEP_SMALL

    def _max_s(self, limit: float, now: float) -> float:
        share, cap_s = REJECTED_SHARE, PROBE_CAP_S
        if self._fallen(limit, now):
            share, cap_s = FALLEN_REJECTED_SHARE, FALLEN_PROBE_CAP_S
        per_s = self.throughput.per_s(now)
        affordable_s = self._cost / (share * per_s) if per_s > 0.0 else cap_s
        return min(cap_s, max(PROBE_MAX_AT_LEAST_S, affordable_s, PROBE_HINTS * self._hint_s))

    def _fallen(self, limit: float, now: float) -> bool:
        return now - self._fell_at < FALLEN_S and GAIN * limit < self._fell_from

    def _count(self, rejections: int) -> None:
        self._cost += PROBE_COST_WEIGHT * (rejections - self._rejections - self._cost)
        self._rejections = rejections
