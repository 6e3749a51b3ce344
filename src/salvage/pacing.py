"""How many held tasks may come back while fresh work wants the same lane: a share of what is sent.

Within any 60 s, releases are at most ``share`` of the sends, and ``minimum`` are always allowed. Counts live
in buckets of one second, rounded against the releases: a bucket that straddles the window's edge counts in
full as released and not at all as sent. So the bound holds for the exact window, at O(1) per event and 61
integers.
"""

from __future__ import annotations

from math import floor, inf

__all__ = ["WINDOW_S", "ReleasePace", "SlidingCount"]

WINDOW_S = 60
"""Seconds over which the share holds."""


class SlidingCount:
    """Events in the last ``buckets`` whole seconds, the running one included."""

    __slots__ = ("_bucket", "_buckets", "_ends_at", "_second", "total")

    def __init__(self, buckets: int) -> None:
        self._buckets = [0] * buckets
        self._second: int | None = None
        self._bucket = 0
        self._ends_at = -inf
        self.total = 0

    def add(self, now: float) -> None:
        """Count one event."""
        if now >= self._ends_at:  # almost every event is in the running second
            self.advance(now)
        self._buckets[self._bucket] += 1
        self.total += 1

    def advance(self, now: float) -> None:
        """Forget what has left the window."""
        if now < self._ends_at:
            return
        second, size = floor(now), len(self._buckets)
        if self._second is not None:
            for passed in range(self._second + 1, min(second, self._second + size) + 1):
                self.total -= self._buckets[passed % size]
                self._buckets[passed % size] = 0
        self._second, self._bucket, self._ends_at = second, second % size, second + 1.0

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

    __slots__ = ("_again", "_minimum", "_releases", "_sends", "_share")

    def __init__(self, *, share: float, minimum: int) -> None:
        self._share = share
        self._minimum = minimum
        self._sends = SlidingCount(WINDOW_S)
        self._again = SlidingCount(WINDOW_S)  # those of the sends that were no task's first
        self._releases = SlidingCount(WINDOW_S + 1)

    def sent(self, now: float, fresh: bool) -> None:
        """Count a request that went out; ``fresh`` if it was its task's first."""
        self._sends.add(now)
        if not fresh:
            self._again.add(now)

    def released(self, now: float) -> None:
        """Count a held task that was let go."""
        self._releases.add(now)

    def has_fresh_sends(self, now: float) -> bool:
        """Whether a first try went out on this lane within the window."""
        self._sends.advance(now)
        self._again.advance(now)
        return self._sends.total > self._again.total

    def ready_at(self, now: float) -> float:
        """When the next release fits if nothing more is sent: ``now`` or later. Each send may make it
        earlier."""
        self._sends.advance(now)
        self._releases.advance(now)
        allowed = max(float(self._minimum), self._share * self._sends.total)
        return now if self._releases.total + 1 <= allowed else max(now, self._releases.next_drop(now))

    def check(self) -> None:
        """Assert the invariants."""
        for count in (self._sends, self._again, self._releases):
            count.check()
