"""One rate quota of a provider: a bucket that refills continuously, or a window that refills at each full
minute.

Amounts are requests or tokens; rates are per minute; times are seconds. Both kinds answer the same four
questions.
"""

from __future__ import annotations

import math
from typing import Final

from .values import QuotaState

__all__ = ["Bucket", "FixedWindow", "Quota"]

MINUTE_S: Final = 60.0
SLACK: Final = 1e-9  # a refill computed in floats may miss the whole amount by this much


class Bucket:
    """A token bucket: ``burst`` at once, ``per_minute`` in the long run."""

    def __init__(self, per_minute: float, burst: float, now: float) -> None:
        self._per_minute = per_minute
        self._burst = burst
        self._level = burst
        self._at = now

    def retune(self, per_minute: float, burst: float, now: float) -> None:
        """Change rate and size; what is in the bucket stays, up to the new size."""
        self._refill(now)
        self._per_minute, self._burst, self._level = per_minute, burst, min(self._level, burst)

    def wait_s(self, cost: float, now: float) -> float:
        """Return the seconds until ``cost`` fits: 0 if it fits now, infinity if it never does."""
        self._refill(now)
        missing = cost - self._level
        if missing <= SLACK * max(1.0, cost):
            return 0.0
        if cost > self._burst or self._per_minute == 0:
            return math.inf
        return missing * MINUTE_S / self._per_minute

    def take(self, cost: float, now: float) -> None:
        """Use up ``cost``, or all there is if that is less."""
        self._refill(now)
        self._level = max(0.0, self._level - cost)

    def state(self, now: float) -> QuotaState:
        """Return what headers say of this quota."""
        self._refill(now)
        missing = self._burst - self._level
        reset_s = missing * MINUTE_S / self._per_minute if self._per_minute else 0.0
        return QuotaState(self._per_minute, self._level, reset_s)

    def check(self) -> None:
        """Assert that the level is within the bucket."""
        assert 0 <= self._level <= self._burst

    def _refill(self, now: float) -> None:
        assert now >= self._at, "time went back"
        self._level = min(self._burst, self._level + (now - self._at) * self._per_minute / MINUTE_S)
        self._at = now


class FixedWindow:
    """A quota that counts from zero at each full minute (shifted by ``phase_s``)."""

    def __init__(self, per_minute: float, phase_s: float) -> None:
        self._quota = per_minute
        self._phase_s = phase_s
        self._index: int = -1
        self._used = 0.0

    def retune(self, per_minute: float, phase_s: float) -> None:
        """Change the quota; what was used in this minute stays used."""
        self._quota, self._phase_s = per_minute, phase_s

    def wait_s(self, cost: float, now: float) -> float:
        """Return the seconds until ``cost`` fits: 0 if it fits now, infinity if it never does."""
        self._turn(now)
        if self._used + cost <= self._quota + SLACK:
            return 0.0
        return math.inf if cost > self._quota else self._left_s(now)

    def take(self, cost: float, now: float) -> None:
        """Use up ``cost``, or all there is if that is less."""
        self._turn(now)
        self._used = min(max(self._quota, self._used), self._used + cost)

    def state(self, now: float) -> QuotaState:
        """Return what headers say of this quota."""
        self._turn(now)
        return QuotaState(self._quota, max(0.0, self._quota - self._used), self._left_s(now))

    def check(self) -> None:
        """Assert that nothing negative was counted."""
        assert self._used >= 0

    def _turn(self, now: float) -> None:
        index = int((now - self._phase_s) // MINUTE_S)
        if index != self._index:
            self._index, self._used = index, 0.0

    def _left_s(self, now: float) -> float:
        return (self._index + 1) * MINUTE_S + self._phase_s - now


Quota = Bucket | FixedWindow
