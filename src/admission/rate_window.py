"""A quota that comes back all at once, every minute: when it does, and whether it is one.

Decides nothing about the rate. A *fixed window* shows when requests are still rejected after a steady refill would have
made room several times over; but so does an outage. The window is taken to be a minute. It opens again at some moment
between the last rejected canary and the one that got through, and at the same second of every minute, so each block
narrows that moment down. Only a quota that two windows had alike is believed: no outage repeats itself so.
"""

from __future__ import annotations

from math import floor, inf
from typing import TYPE_CHECKING, Final

from .rate_counts import Mark

if TYPE_CHECKING:
    from .rate_counts import SendCounts

__all__ = ["PROOF", "REPEATS_WITHIN", "WINDOW_S", "FixedWindow"]

WINDOW_S: Final = 60.0
"""The fixed window that providers use."""

PROOF: Final = 2.5
"""Rejected after a steady refill would have made room for so many requests: there is no steady refill."""

SPELL_S: Final = 5.0
"""A window that refuses for less than this cannot be told from a bucket that is empty."""

USED_UP: Final = 0.9
"""A window that refuses has let through at least this share of its quota."""

REPEATS_WITHIN: Final = 0.05
"""A quota this close to the one measured before is the same quota."""


class FixedWindow:
    """What is known of one provider's window. Times in seconds (monotonic)."""

    __slots__ = ("_edge", "_spent", "first", "last", "quota")

    def __init__(self) -> None:
        self._edge = (-inf, -inf)  # it last opened between these two moments
        self._spent = inf  # what the last one let through
        self.first: Mark | None = None  # the rejection since which hardly anything was accepted
        self.last: Mark | None = None  # the latest one, and its cost
        self.quota: float | None = None  # units a window, once two had them alike

    def refused(self, cost: float, sent_at: float, units_before: float) -> None:
        """A send of ``cost`` came back rejected, whatever for."""
        first, last = self.first, self.last
        if first is None or units_before - first.units + first.corrected >= PROOF * cost:
            self.first = Mark(sent_at, units_before)
        if last is None or sent_at >= last.at:
            self.last = Mark(sent_at, cost)

    def ended(self, counts: SendCounts, opened: Mark | None, reopened: Mark) -> bool:
        """Whether what ended before ``reopened`` was a window like the one before: then ``quota`` is known.

        ``opened`` is when sends began after the block before, or after a pause.
        """
        first, last = self.first, self.last
        self.first = self.last = None
        if first is None or last is None or last.at - first.at < SPELL_S:
            return False
        accepted = reopened.units - first.units + first.corrected - reopened.corrected
        began = max(self.began(last.at, reopened.at), counts.busy_since)
        if began > first.at:
            return False
        if opened is not None and opened.at >= self._edge[0] - WINDOW_S:  # nothing was let through before it
            spent = reopened.units - opened.units + opened.corrected - reopened.corrected
        else:
            spent = counts.accepted(first.at - began, first.at, first.units) + accepted
        if spent / WINDOW_S * (last.at - first.at) - accepted < PROOF * last.units:
            return False
        before = self._spent
        if not self.repeats(spent):
            return False  # one such block may have been an outage
        self.quota = min(before, spent)
        return True

    def explains(self, counts: SendCounts, sent_at: float, units_before: float) -> bool:
        """Whether the window had been used up when a send was rejected; if not, it is none."""
        if self.quota is None:
            return False
        low = self.next_edge(sent_at)[0] - WINDOW_S
        if counts.accepted(sent_at - low, sent_at, units_before) < USED_UP * self.quota:
            self.quota = None
        return self.quota is not None

    def next_edge(self, now: float) -> tuple[float, float]:
        """Between when it opens next: the latter is later than ``now``."""
        low, high = self._edge
        turns = (floor((now - high) / WINDOW_S) + 1) * WINDOW_S
        return low + turns, high + turns

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
