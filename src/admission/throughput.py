"""How many completions a second, over the last half minute, in bounded memory.

Decides nothing. A ring of bins: O(1) per event whatever the rate.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["Throughput"]

WINDOW_S: Final = 30.0
"""Long enough to smooth over a few latencies, short enough to follow a change of the limit."""

BINS: Final = 10
"""What leaves the window at once is a tenth of it."""


class Throughput:
    """Completions per second over :data:`WINDOW_S`, or since the first one if that is less."""

    __slots__ = ("_bin", "_counts", "_first", "_slot", "_until")

    def __init__(self) -> None:
        self._counts = [0] * BINS
        self._bin = 0
        self._slot = 0  # of the present bin in the ring
        self._first: float | None = None
        self._until = -inf  # the end of the present bin

    def add(self, now: float) -> None:
        """One request completed at ``now``."""
        if now >= self._until:
            if self._first is None:
                self._first = now
                self._bin = _bin(now)
            self._roll(now)
        self._counts[self._slot] += 1

    def per_s(self, now: float) -> float:
        """Completions per second; 0 before the first."""
        if self._first is None:
            return 0.0
        self._roll(now)
        covered = (BINS - 1) * _BIN_S + now - _bin(now) * _BIN_S
        return sum(self._counts) / max(_BIN_S, min(covered, now - self._first))

    def check(self) -> None:
        """Assert every invariant."""
        assert self._slot == self._bin % BINS
        assert min(self._counts) >= 0

    def _roll(self, now: float) -> None:
        current = _bin(now)
        for passed in range(self._bin + 1, min(current, self._bin + BINS) + 1):
            self._counts[passed % BINS] = 0
        self._bin = max(self._bin, current)
        self._slot = self._bin % BINS
        self._until = (self._bin + 1) * _BIN_S


_BIN_S = WINDOW_S / BINS


def _bin(now: float) -> int:
    return int(now // _BIN_S)
