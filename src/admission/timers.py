"""Which of many keyed moments comes next: one heap instead of a timer for each.

Decides nothing; it only keeps the earliest moment at hand. O(log n) an operation, stale entries are swept.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

__all__ = ["Timers"]

K = TypeVar("K", bound=Hashable)

_SPARE_ENTRIES = 64


class Timers(Generic[K]):
    """At most one moment for each key. Times are seconds on whatever clock the caller uses. ``earliest``, to be read
    only, is the next one, or ``inf``."""

    # The heap may hold moments that were replaced or removed, but never at its top: the next one is heap[0].
    __slots__ = ("_at", "_heap", "_sequence", "earliest")

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self.earliest = inf

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: K, at: float) -> None:
        """Replace the moment of ``key``; ``inf`` removes it."""
        moments = self._at
        if at == inf:
            if moments.pop(key, None) == self.earliest:
                self._uncover()
            return
        before = moments.get(key)
        if before == at:
            return
        moments[key] = at
        self._sequence += 1
        heappush(self._heap, (at, self._sequence, key))
        if at < self.earliest:
            self.earliest = at
        if before == self.earliest:
            self._uncover()
        if len(self._heap) > 2 * len(moments) + _SPARE_ENTRIES:
            self._rebuild()

    def at(self, key: K) -> float:
        """The moment of ``key``, or ``inf``."""
        return self._at.get(key, inf)

    def pop_due(self, now: float) -> K | None:
        """Take out one key whose moment has come, earliest first; None when none has."""
        if self.earliest > now or not self._heap:
            return None
        key = heappop(self._heap)[2]
        del self._at[key]
        self._uncover()
        return key

    def footprint(self) -> int:
        """Entries held, rubbish included."""
        return len(self._heap)

    def _uncover(self) -> None:
        """Drop what is out of date from the top of the heap."""
        heap, moments = self._heap, self._at
        while heap and moments.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        self.earliest = heap[0][0] if heap else inf

    def _rebuild(self) -> None:
        self._heap = []
        for key, at in self._at.items():
            self._sequence += 1
            self._heap.append((at, self._sequence, key))
        heapify(self._heap)
