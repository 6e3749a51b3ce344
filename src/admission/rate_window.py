"""A quota that comes back all at once, every minute: when it does, and whether it is one.

Decides nothing about the rate. A *fixed window* shows when requests are still rejected after a steady refill would have
made room several times over; but so does an outage. The window is taken to be a minute. It opens again at some moment
between the last rejected canary and the one that got through, and at the same second of every minute, so each block
narrows that moment down. Only a quota that two windows had alike is believed: no outage repeats itself so.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["PROOF", "REPEATS_WITHIN", "WINDOW_S", "FixedWindow"]

WINDOW_S: Final = 60.0
"""The fixed window that providers use."""

PROOF: Final = 2.5
"""Rejected after a steady refill would have made room for so many requests: there is no steady refill."""

REPEATS_WITHIN: Final = 0.05
"""A quota this close to the one measured before is the same quota."""


class FixedWindow:
    """What is known of one provider's window. Times in seconds (monotonic)."""

    __slots__ = ("_edge", "_spent")

    def __init__(self) -> None:
        self._edge = (-inf, -inf)  # it last opened between these two moments
        self._spent = inf  # what the last one let through

    def began(self, after: float, until: float) -> float:
        """When the window began that ended between ``after`` and ``until``, as well as is known."""
        low, high = self._edge
        turns = round((after + until - low - high) / 2.0 / WINDOW_S) * WINDOW_S if low > -inf else 0.0
        both = max(after, low + turns), min(until, high + turns)
        self._edge = both if low > -inf and both[0] <= both[1] else (after, until)
        return (self._edge[0] + self._edge[1]) / 2.0 - WINDOW_S

    def repeats(self, spent: float) -> bool:
        """Whether ``spent`` units, let through by the window that just ended, are what the one before let through."""
        before, self._spent = self._spent, spent
        return 0.0 < before < inf and abs(spent - before) <= REPEATS_WITHIN * before
