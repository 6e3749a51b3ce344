"""The last rejection as a measurement of the limit: how much it was, and whether another one agrees with it.

Decides what is noise and what is strange. What follows from it is decided in :mod:`headgate.admission.concurrency`.
"""

from __future__ import annotations

from math import floor, inf, sqrt

from .law_values import (
    CONTENDED_CUT,
    CONTENDED_CUT_ROOT,
    NOISE_CONSECUTIVE,
    NOISE_CONSECUTIVE_SHARE,
    NOISE_SHARE,
    NOISE_TAUS,
    STRANGE_SHARE,
)

__all__ = ["Measurement", "shared"]


class Measurement:
    """``level`` others were in flight when a rejected request was sent; taken ``at`` (seconds, monotonic)."""

    __slots__ = ("at", "level")

    def __init__(self) -> None:
        self.level = inf  # before the first
        self.at = -inf

    def take(self, level: float, now: float) -> None:
        """This is the measurement now."""
        self.level = level
        self.at = now

    def state(self) -> tuple[float, float]:
        """Level and moment, as :meth:`take` takes them."""
        return self.level, self.at

    def explains(self, in_flight: int, consecutive: int, *, tau: float, now: float) -> bool:
        """Whether a rejection at ``in_flight`` only shows that what was in transit made it a little too high."""
        recent = now - self.at <= NOISE_TAUS * tau
        in_row = max(NOISE_CONSECUTIVE, NOISE_CONSECUTIVE_SHARE * self.level)
        return recent and consecutive <= in_row and in_flight >= NOISE_SHARE * self.level

    def strange(self, in_flight: int) -> bool:
        """Whether a rejection at ``in_flight`` cannot be about the same limit, used by nobody else."""
        return abs(in_flight - self.level) > max(1.0, STRANGE_SHARE * in_flight)


def shared(in_flight: int) -> float:
    """What a rejection at ``in_flight`` leaves with other tenants about."""
    return floor(in_flight - max(1.0, min(CONTENDED_CUT * in_flight, CONTENDED_CUT_ROOT * sqrt(in_flight))))
