"""The limit of an adaptive law as a height: its bounds, the way in which it grows just now, and how soon it grows.

Decides how high the ceiling is after so much time in use. When it is in use, what a rejection means and when to ask
for more is decided in :mod:`headgate.admission.concurrency`.
"""

from __future__ import annotations

from math import floor, inf
from typing import Final, NamedTuple

from .growth import Recovery, climbed, climbing_s, doubled, doubling_s
from .law_values import CREEP_SLOTS, RECOVERY_MIN_S, WHOLE, Mode
from .queueing import Knee

__all__ = ["FALLING", "HOLDING", "PROBING", "Ceiling", "CeilingState"]

# Named once: they are asked for every request, and looking up an enum's member is slow.
HOLDING: Final = Mode.HOLD
PROBING: Final = Mode.PROBE
FALLING: Final = Mode.FALL


class CeilingState(NamedTuple):
    """A ceiling as it was. ``recovery`` is a copy."""

    limit: float
    mode: Mode
    level: float
    climb_s: float
    recovery: Recovery | None


class Ceiling:
    """The limit, between ``minimum`` and ``maximum``.

    ``mode`` says how it grows, ``level`` what held before the probe or climb that is under way, ``climb_s`` how many
    seconds of use the climb has lasted, ``recovery`` the way back after a cut. ``allowed`` is the highest that was
    asked for; ``maximum`` is less if the ``knee`` of a server that queues is.
    """

    # The mutable state is exactly these slots.
    __slots__ = ("allowed", "climb_s", "knee", "level", "limit", "maximum", "minimum", "mode", "recovery")

    def __init__(self, *, minimum: int, start: float, maximum: int, mode: Mode, queueing: bool) -> None:
        assert 1 <= minimum <= maximum, f"a limit between {minimum} and {maximum} cannot be kept"
        self.minimum = minimum
        self.allowed = maximum
        self.maximum = maximum
        self.limit = float(min(maximum, max(minimum, start)))
        self.mode = mode
        self.level = 0.0
        self.climb_s = 0.0
        self.recovery: Recovery | None = None
        self.knee = Knee(minimum=minimum, start=self.limit, maximum=maximum) if queueing else None
        if self.knee is not None:
            self.maximum = int(self.knee.level)

    @property
    def grows(self) -> bool:
        """Whether it is on its way up, so that a rejection is what one waits for."""
        return self.recovery is not None or self.mode in _GROWING

    @property
    def rests(self) -> bool:
        """Whether it only holds, with nothing to grow back."""
        return self.recovery is None and self.mode is HOLDING

    def grow(self, dt: float, *, tau: float, creep_per_s: float) -> None:
        """``dt`` seconds of use passed. A hold creeps upwards at ``creep_per_s``."""
        if self.rests and not creep_per_s:
            return  # nothing to do, and most of the time it is so
        match self.mode:
            case Mode.RAMP:
                self.set(doubled(self.limit, dt))
            case Mode.CLIMB:
                self.set(climbed(self.limit, self.climb_s, dt, tau=tau))
                self.climb_s += dt
            case Mode.HOLD:
                if self.recovery is not None:
                    self._recover(self.recovery, dt)
                elif creep_per_s:
                    self.set(self.limit + self._creep(creep_per_s) * dt)
                    self.climb_s += dt
            case Mode.PROBE | Mode.FALL:
                pass
        if self.limit >= self.maximum and self.mode in (Mode.RAMP, Mode.CLIMB):
            self.mode = Mode.HOLD

    def next_whole_s(self, *, tau: float, creep_per_s: float) -> float:
        """Seconds of use until the next whole number; ``inf`` if the present mode does not lead there."""
        level = floor(self.limit) + 1.0
        if self.limit >= self.maximum:
            return inf
        match self.mode:
            case Mode.RAMP:
                return doubling_s(self.limit, level)
            case Mode.CLIMB:
                return climbing_s(self.limit, self.climb_s, level, tau=tau)
            case Mode.HOLD:
                if self.recovery is not None:
                    return self.recovery.reaches_s(level)
                return (level - self.limit) / self._creep(creep_per_s) if creep_per_s else inf
            case Mode.PROBE | Mode.FALL:
                return inf

    def probe(self) -> None:
        """One slot more, to see."""
        self.level = float(floor(self.limit))
        self.mode = Mode.PROBE
        self.set(self.level + 1.0)

    def climb(self) -> None:
        """The slot was there: there may be more."""
        self.mode = Mode.CLIMB
        self.climb_s = 0.0

    def recover(self, top: float) -> None:
        """The slot was there, and ``top`` once held: back to it, fast at first."""
        self.mode = Mode.HOLD
        self.recovery = Recovery(self.limit, top, RECOVERY_MIN_S)

    def hold(self, limit: float) -> None:
        """At most ``limit``, and stay there."""
        self.mode = Mode.HOLD
        self.recovery = None
        self.climb_s = 0.0
        self.set(min(self.limit, limit))

    def cut(self, limit: float, *, top: float, span_s: float, mode: Mode) -> None:
        """At most ``limit``, and back to ``top`` within ``span_s`` seconds of use once ``mode`` is HOLD."""
        self.mode = mode
        self.set(min(self.limit, limit))
        self.recovery = Recovery(self.limit, top, span_s)

    def set(self, limit: float) -> None:
        """Put it at ``limit``, or at the nearer bound."""
        whole = float(round(limit))
        if abs(limit - whole) < WHOLE:
            limit = whole
        self.limit = min(float(self.maximum), max(float(self.minimum), limit))

    def set_bounds(self, minimum: int, allowed: int, now: float, *, rejected: bool) -> None:
        """Other bounds from now on. A limit that was never ``rejected`` goes on growing where it stood at a bound."""
        assert 1 <= minimum <= allowed, f"a limit between {minimum} and {allowed} cannot be kept"
        self.minimum = minimum
        self.allowed = allowed
        if self.knee is not None:
            self.knee.set_bounds(minimum, allowed, now)
        self.follow(rejected=rejected)

    def follow(self, *, rejected: bool) -> None:
        """The knee moved, or the bounds did."""
        grown = not rejected and self.limit >= self.maximum
        self.maximum = self.allowed if self.knee is None else int(self.knee.level)
        before = self.limit
        self.set(before)
        if self.limit != before:
            self.recovery = None  # it led back to where this limit no longer comes from
        if grown and self.mode is Mode.HOLD and self.limit < self.maximum:
            self.mode = Mode.RAMP

    def state(self) -> CeilingState:
        """As it is now."""
        recovery = None if self.recovery is None else self.recovery.copy()
        return CeilingState(self.limit, self.mode, self.level, self.climb_s, recovery)

    def restore(self, state: CeilingState) -> None:
        """Go on from ``state``, or from where it is now if that is higher."""
        limit, self.mode, self.level, self.climb_s, self.recovery = state
        if self.mode is Mode.PROBE:  # whether the slot was there cannot be told any more
            self.mode = Mode.HOLD
            limit = self.level
        self.set(max(self.limit, limit))
        if self.limit != limit:
            self.recovery = None

    def check(self) -> None:
        """Assert every invariant."""
        assert 1 <= self.minimum <= self.limit <= self.maximum, f"limit {self.limit} out of bounds"
        if self.knee is not None:
            self.knee.check()
            assert self.maximum <= self.knee.level
        assert (self.recovery is None) or self.mode in (Mode.HOLD, Mode.FALL)

    def _creep(self, creep_per_s: float) -> float:
        """The pace of a creep, which quickens when it should have met a limit long ago."""
        return creep_per_s * max(1.0, self.climb_s * creep_per_s / CREEP_SLOTS) ** 2

    def _recover(self, recovery: Recovery, dt: float) -> None:
        recovery.elapsed_s += dt
        self.set(max(self.limit, recovery.level(recovery.elapsed_s)))
        if recovery.over or self.limit >= min(recovery.top, self.maximum):
            self.recovery = None


_GROWING = (Mode.RAMP, Mode.PROBE, Mode.CLIMB)
