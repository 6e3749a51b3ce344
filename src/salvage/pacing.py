"""How many held tasks may come back while fresh work wants the same lane: a share of what is sent.

Within any 60 s, releases are at most ``share`` of the sends, and ``minimum`` are always allowed. Counts live
in buckets of one second, rounded against the releases: a bucket that straddles the window's edge counts in
full as released and not at all as sent. So the bound holds for the exact window, at O(1) per event and 61
integers.
"""

from __future__ import annotations

from math import floor

__all__ = ["WINDOW_S", "ReleasePace", "SlidingCount"]

WINDOW_S = 60
"""Seconds over which the share holds."""


class SlidingCount:
    """Events in the last ``buckets`` whole seconds, the running one included."""

    __slots__ = ("_buckets", "_second", "total")

    def __init__(self, buckets: int) -> None:
        self._buckets = [0] * buckets
        self._second: int | None = None
        self.total = 0

    def add(self, now: float) -> None:
        """Count one event."""
        if self._second is None or now >= self._second + 1:  # almost every event is in the running second
            self.advance(now)
        self._buckets[(self._second or 0) % len(self._buckets)] += 1
        self.total += 1

    def advance(self, now: float) -> None:
        """Forget what has left the window."""
        second = floor(now)
        if self._second is None:
            self._second = second
            return
        size = len(self._buckets)
        for passed in range(self._second + 1, min(second, self._second + size) + 1):
            self.total -= self._buckets[passed % size]
            self._buckets[passed % size] = 0
        self._second = max(second, self._second)

    def next_drop(self, now: float) -> float:
        """When the next counted event leaves the window; ``now`` if there is none."""
        self.advance(now)
        size, second = len(self._buckets), self._second or 0
        for ahead in range(1, size + 1):
            if self._buckets[(second + ahead) % size]:
                return float(second + ahead)
        return now

    def check(self) -> None:
        """Assert the invariants."""
        assert self.total == sum(self._buckets)
        assert min(self._buckets) >= 0


class ReleasePace:
    """The pace of one lane's held releases."""

    __slots__ = ("_fresh", "_minimum", "_releases", "_sends", "_share")

    def __init__(self, *, share: float, minimum: int) -> None:
        self._share = share
        self._minimum = minimum
        self._sends = SlidingCount(WINDOW_S)
        self._fresh = SlidingCount(WINDOW_S)
        self._releases = SlidingCount(WINDOW_S + 1)

    def sent(self, now: float, *, fresh: bool) -> None:
        """Count a request that went out; ``fresh`` if it was its task's first."""
        self._sends.add(now)
        if fresh:
            self._fresh.add(now)

    def released(self, now: float) -> None:
        """Count a held task that was let go."""
        self._releases.add(now)

    def has_fresh_sends(self, now: float) -> bool:
        """Whether a first try went out on this lane within the window."""
        self._fresh.advance(now)
        return self._fresh.total > 0

    def ready_at(self, now: float) -> float:
        """When the next release fits if nothing more is sent: ``now`` or later. Each send may make it
        earlier."""
        self._sends.advance(now)
        self._releases.advance(now)
        allowed = max(float(self._minimum), self._share * self._sends.total)
        return now if self._releases.total + 1 <= allowed else max(now, self._releases.next_drop(now))

    def check(self) -> None:
        """Assert the invariants."""
        for count in (self._sends, self._fresh, self._releases):
            count.check()
