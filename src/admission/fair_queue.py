"""Whose turn is it: start-time fair queueing over keys that have work waiting.

Decides the order among keys (flows, resources); holds no work itself and knows nothing of capacity. A key that
was away for long gains no credit from it, a key that is served pays ``cost / weight`` of virtual time.

Source: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queuing", 1996. Queues nest: a key of one may be a queue of
others, which gives the hierarchical form of the same paper.

Bounds: for two keys that both wait, the service they get, divided by their weights, differs by at most one
request each (that paper's theorem 1). Costs: O(log waiting keys) an operation.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

K = TypeVar("K", bound=Hashable)

_SPARE_ENTRIES = 64  # how much rubbish a heap or table may hold before it is swept: keeps sweeps amortised O(1)


class FairQueue(Generic[K]):
    """Keys with work waiting, in order of their virtual start times; ties go to the higher rank, then to age."""

    __slots__ = ("_entries", "_finish", "_heap", "_sequence", "_virtual_time")

    def __init__(self) -> None:
        self._virtual_time = 0.0
        self._sequence = 0
        # A key's live entry is the one in _entries; older ones in _heap are skipped when they surface.
        self._entries: dict[K, tuple[float, float, int, float, K]] = {}
        self._heap: list[tuple[float, float, int, float, K]] = []
        self._finish: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def add(self, key: K, weight: float = 1.0, rank: float = 0.0) -> None:
        """``key`` has work waiting from now on. Adding a key that waits already changes nothing."""
        if key in self._entries:
            return
        start = max(self._virtual_time, self._finish.get(key, 0.0))
        self._insert(start, -rank, weight, key)

    def remove(self, key: K) -> None:
        """``key`` has no more work; what it owes is remembered until the others have caught up."""
        if self._entries.pop(key, None) is not None:
            self._sweep()

    def head(self) -> K | None:
        """The key whose turn it is, or None. It stays in the queue until it is charged and removed."""
        heap, entries = self._heap, self._entries
        while heap:
            entry = heap[0]
            if entries.get(entry[4]) is entry:
                return entry[4]
            heappop(heap)
        return None

    def charge(self, key: K, cost: float = 1.0) -> None:
        """``key`` was served work of ``cost``: it moves back by ``cost / weight``."""
        entry = self._entries.get(key)
        if entry is None:
            return
        start, negative_rank, _, weight, _ = entry
        if start > self._virtual_time:
            self._virtual_time = start
        finish = start + cost / weight
        self._finish[key] = finish
        self._insert(finish, negative_rank, weight, key)
        self._sweep()

    def check(self) -> None:
        """Assert that every waiting key has its one live entry."""
        live = [entry for entry in self._heap if self._entries.get(entry[4]) is entry]
        assert len(live) == len(self._entries)
        assert len(self._heap) <= 2 * len(self._entries) + _SPARE_ENTRIES + 1

    def _insert(self, start: float, negative_rank: float, weight: float, key: K) -> None:
        self._sequence += 1
        entry = (start, negative_rank, self._sequence, weight, key)
        self._entries[key] = entry
        heappush(self._heap, entry)

    def _sweep(self) -> None:
        entries = self._entries
        most = 2 * len(entries) + _SPARE_ENTRIES
        if len(self._heap) > most:
            self._heap = list(entries.values())
            heapify(self._heap)
        if len(self._finish) > most:
            now = self._virtual_time
            self._finish = {k: f for k, f in self._finish.items() if f > now or k in entries}
