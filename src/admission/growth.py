"""The three shapes in which a limit grows: doubling, climb, and recovery after a cut.

Pure functions, each with its inverse: how far in ``dt`` seconds, and how long to a level. When to grow at all
is decided in :mod:`headgate.admission.concurrency`. The recovery is the cubic of CUBIC congestion control:
fast while far from the level that failed, slow near it.
"""

from __future__ import annotations

from math import exp2, inf, log2

from .law_values import CLIMB_PER_S, CLIMB_SHARE, DOUBLING_S

__all__ = ["Recovery", "climbed", "climbing_s", "doubled", "doubling_s"]

_LN2 = 0.6931471805599453
_PACE_DOUBLINGS_MAX = 40.0  # beyond this pace the ramp's doubling is the bound anyway; keeps the power finite


def doubled(limit: float, dt: float) -> float:
    """``limit`` after ``dt`` seconds of ramp."""
    return limit * exp2(min(dt / DOUBLING_S, _PACE_DOUBLINGS_MAX))


def doubling_s(limit: float, level: float) -> float:
    """Seconds of ramp from ``limit`` up to ``level``."""
    return DOUBLING_S * log2(level / limit) if level > limit else 0.0


def climbed(limit: float, since_s: float, dt: float, *, tau: float) -> float:
    """``limit`` after ``dt`` more seconds of a climb that has lasted ``since_s``; never faster than a
    ramp."""
    begun = min(since_s / tau, _PACE_DOUBLINGS_MAX)
    ended = min((since_s + dt) / tau, _PACE_DOUBLINGS_MAX)
    gain = _pace(limit) * tau / _LN2 * (exp2(ended) - exp2(begun))
    return min(limit + gain, doubled(limit, dt))


def climbing_s(limit: float, since_s: float, level: float, *, tau: float) -> float:
    """Seconds until such a climb reaches ``level``."""
    if level <= limit:
        return 0.0
    begun = min(since_s / tau, _PACE_DOUBLINGS_MAX)
    ended = log2(exp2(begun) + (level - limit) * _LN2 / (_pace(limit) * tau))
    return max((ended - begun) * tau, doubling_s(limit, level))


def _pace(limit: float) -> float:
    return max(CLIMB_PER_S, CLIMB_SHARE * limit)


class Recovery:
    """Growing back from ``cut`` to ``top`` within ``span_s`` seconds of use.

    Time counts only while the limit is in use, so that an idle hour earns nothing.
    """

    __slots__ = ("cut", "elapsed_s", "span_s", "top")

    def __init__(self, cut: float, top: float, span_s: float) -> None:
        self.cut = cut
        self.top = max(cut, top)
        self.span_s = span_s
        self.elapsed_s = 0.0

    def copy(self) -> Recovery:
        """As it is now."""
        copy = Recovery(self.cut, self.top, self.span_s)
        copy.elapsed_s = self.elapsed_s
        return copy

    @property
    def over(self) -> bool:
        """Whether the whole way back is open."""
        return self.elapsed_s >= self.span_s

    def level(self, elapsed_s: float) -> float:
        """Where the limit may be after ``elapsed_s`` seconds of use."""
        left = max(0.0, 1.0 - elapsed_s / self.span_s)
        return self.top - (self.top - self.cut) * left**3

    def reaches_s(self, level: float) -> float:
        """Seconds of further use until :meth:`level` is ``level``; ``inf`` if it never is."""
        if level > self.top:
            return inf
        if self.top <= self.cut:
            return 0.0
        left = ((self.top - level) / (self.top - self.cut)) ** (1.0 / 3.0) if level > self.cut else 1.0
        return max(0.0, self.span_s * (1.0 - left) - self.elapsed_s)
