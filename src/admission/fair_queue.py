"""Whose turn is it: start-time fair queueing over keys that have work waiting.

Decides the order among keys (flows, resources); holds no work itself and knows nothing of capacity. A key that
was away for long gains no credit from it, a key that is served pays ``cost / weight`` of virtual time.

Source: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queuing", 1996. Queues nest: a key of one may be a queue of
others, which gives the hierarchical form of the same paper.

Bounds: for two keys that both wait, the service they get, divided by their weights, differs by at most one
request each (that paper's theorem 1). Costs: O(log waiting keys) an operation.

When nobody waits any more, all debts are void (the end of a busy period, there). While somebody waits, the latest debts
are remembered, in proportion to the keys that wait: who was forgotten may get one request more than its share.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

K = TypeVar("K", bound=Hashable)

_SPARE_ENTRIES = 64  # how much rubbish a heap or table may hold before it is swept: keeps sweeps amortised O(1)


class FairQueue(Generic[K]):
    """Keys with work waiting, in order of their virtual start times; ties go to the higher rank, then to age."""

    # A key's live entry is the one in _entries: (start, -rank, sequence, weight, key). The heap may hold older ones,
    # but never at its top, so that looking at the head is looking at heap[0].
    __slots__ = ("_entries", "_finish", "_heap", "_sequence", "_virtual_time")

    def __init__(self) -> None:
        self._virtual_time = 0.0
        self._sequence = 0
        self._entries: dict[K, tuple[float, float, int, float, K]] = {}
        self._heap: list[tuple[float, float, int, float, K]] = []
        self._finish: dict[K, float] = {}  # what keys that left still owe

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def add(self, key: K, weight: float = 1.0, rank: float = 0.0) -> bool:
        """``key`` has work waiting from now on. Whether its turn is next; a key that waits already changes nothing."""
        entries = self._entries
        if key in entries:
            return False
        start = self._virtual_time
        if self._finish:
            owed = self._finish.pop(key, start)
            if owed > start:
                start = owed
        self._sequence += 1
        entry = entries[key] = (start, -rank, self._sequence, weight, key)
        heap = self._heap
        heappush(heap, entry)
        return heap[0] is entry

    def remove(self, key: K, cost: float | None = None) -> None:
        """``key`` has no more work; what it owes is remembered until the others have caught up.

        With ``cost`` it was served that much, the last that it had, and is charged for it.
        """
        heap, entries = self._heap, self._entries
        entry = entries.pop(key, None)
        if entry is None:
            return
        finish = start = entry[0]
        if cost is not None:
            finish += cost / entry[3]
            if start > self._virtual_time:
                self._virtual_time = start
        if not entries:  # nobody is there to whom anything could be owed
            heap.clear()
            self._finish.clear()
            return
        if heap[0] is entry:
            heappop(heap)
            if len(heap) > len(entries):
                self._uncover()
        if finish > self._virtual_time:
            self._finish[key] = finish
        most = 2 * len(entries) + _SPARE_ENTRIES
        if len(heap) > most or len(self._finish) > most:
            self._sweep(most)

    def head(self) -> K | None:
        """The key whose turn it is, or None. It stays in the queue until it is charged and removed."""
        heap = self._heap
        return heap[0][4] if heap else None

    def charge(self, key: K, cost: float = 1.0) -> None:
        """``key`` was served work of ``cost`` and has more: it moves back by ``cost / weight``."""
        entries = self._entries
        entry = entries.get(key)
        if entry is None:
            return
        start, negative_rank, _, weight, _ = entry
        turn = cost / weight
        if len(entries) == 1 and start == self._virtual_time + turn and not self._finish:
            return  # alone, and a turn behind whoever comes: only differences count, and this one would stay
        if start > self._virtual_time:
            self._virtual_time = start
        self._sequence += 1
        later = entries[key] = (start + turn, negative_rank, self._sequence, weight, key)
        heap = self._heap
        if heap[0] is entry:
            heapreplace(heap, later)
            if len(heap) > len(entries):
                self._uncover()
        else:
            heappush(heap, later)
            self._sweep(2 * len(entries) + _SPARE_ENTRIES)

    def refund(self, key: K, weight: float, cost: float = 1.0) -> None:
        """``key`` was not served after all what it was charged, or removed, for last."""
        turn = cost / weight
        entry = self._entries.get(key)
        if entry is None:
            owed = self._finish.pop(key, 0.0) - turn
            if owed > self._virtual_time:
                self._finish[key] = owed
            return
        earlier = self._entries[key] = (entry[0] - turn, *entry[1:])
        heappush(self._heap, earlier)
        self._sweep(2 * len(self._entries) + _SPARE_ENTRIES)

    def footprint(self) -> int:
        """Entries held, rubbish and debts included."""
        return len(self._heap) + len(self._finish)

    def check(self) -> None:
        """Assert that every waiting key has its one live entry, and that the top of the heap is one."""
        live = [entry for entry in self._heap if self._entries.get(entry[4]) is entry]
        assert len(live) == len(self._entries)
        assert not self._heap or self._entries.get(self._heap[0][4]) is self._heap[0]
        most = 2 * len(self._entries) + _SPARE_ENTRIES
        assert len(self._heap) <= most + 1
        assert len(self._finish) <= most
        assert self._entries or not self._finish
        assert self._finish.keys().isdisjoint(self._entries)

    def _uncover(self) -> None:
        """Drop what is not live from the top of the heap."""
        heap, entries = self._heap, self._entries
        while heap and entries.get(heap[0][4]) is not heap[0]:
            heappop(heap)

    def _sweep(self, most: int) -> None:
        if len(self._heap) > most:
            self._heap = list(self._entries.values())
            heapify(self._heap)
        if len(self._finish) > most:
            # Where each key comes but once, virtual time stands still: the oldest debts are forgotten.
            now, latest = self._virtual_time, list(self._finish.items())[-(most // 2) :]
            self._finish = {key: finish for key, finish in latest if finish > now}
