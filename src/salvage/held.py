"""A timetable: keys with a time each, the earliest first.

A binary heap with lazy deletion: a key that is moved or removed leaves a dead entry behind, and the heap is
rebuilt once more than half of it is dead. So every operation is O(log n) amortised and memory is O(living
keys).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

__all__ = ["Timetable"]

_SLACK = 16
"""Dead entries that are not worth a rebuild."""


class Timetable(Generic[K]):
    """Each key at most once, at machine seconds. Equal times come in the order in which they were set."""

    __slots__ = ("_heap", "_live", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._live: dict[K, tuple[float, int]] = {}
        self._serial = 0

    def set(self, key: K, time: float) -> None:
        """Put the key at this time, wherever it was before."""
        self._serial += 1
        self._live[key] = (time, self._serial)
        heappush(self._heap, (time, self._serial, key))
        self._compact()

    def discard(self, key: K) -> None:
        """Remove the key if it is there."""
        if self._live.pop(key, None) is not None:
            self._compact()

    def head(self) -> tuple[float, K] | None:
        """Return the earliest time and its key; None if empty."""
        heap = self._heap
        while heap:
            time, serial, key = heap[0]
            if self._live.get(key) == (time, serial):
                return time, key
            heappop(heap)
        return None

    def pop(self) -> K:
        """Remove and return the earliest key. The timetable must not be empty."""
        head = self.head()
        assert head is not None, "nothing to pop"
        heappop(self._heap)
        del self._live[head[1]]
        return head[1]

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self._heap) <= 2 * len(self._live) + _SLACK + 1
        in_heap = {(time, serial) for time, serial, _ in self._heap}
        assert all(place in in_heap for place in self._live.values())

    def __contains__(self, key: K) -> bool:
        return key in self._live

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[K]:
        return iter(self._live)

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            self._heap = [(time, serial, key) for key, (time, serial) in self._live.items()]
            heapify(self._heap)
