"""By when each running job has to be over.

Decides nothing; it knows which job comes due next. Prior art: the timer lists of BSD's and Linux's TCP, one for each
length of time. Jobs with equal timeouts come due in the order in which they began, so each timeout has a queue, and
nothing is ever sorted: O(1) for a job that begins or ends, O(different timeouts) when time may have run out for one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Jobs by timeout, both in seconds, oldest first. They must be told in the order of time.

    ``earliest``, to be read only: before it no job comes due. That a job ends does not move it, so it may come without
    one that is due; ``pop_due`` then finds the next.
    """

    __slots__ = ("_began", "earliest")

    def __init__(self) -> None:
        # An OrderedDict, because a plain one searches for its first key from where its first key once was.
        self._began: dict[float, OrderedDict[K, float]] = {}
        self.earliest = inf

    def begin(self, job: K, timeout_s: float, now: float) -> None:
        """``job`` begins and has ``timeout_s``."""
        queue = self._began.get(timeout_s)
        if queue is None:
            queue = self._began[timeout_s] = OrderedDict()
        assert job not in queue, f"{job} runs already"
        queue[job] = now
        if now + timeout_s < self.earliest:
            self.earliest = now + timeout_s

    def end(self, job: K, timeout_s: float) -> None:
        """``job``, which began with ``timeout_s``, is over. It may have come due before."""
        self._began[timeout_s].pop(job, None)

    def pop_due(self, now: float) -> K | None:
        """Take out one job that has used up its time, longest overdue first; None when there is none."""
        if now < self.earliest:
            return None
        due: OrderedDict[K, float] | None = None
        self.earliest = inf
        for timeout_s, queue in self._began.items():
            oldest_began = next(iter(queue.values()), inf)
            if oldest_began + timeout_s < self.earliest:
                due, self.earliest = queue, oldest_began + timeout_s
        return None if due is None or now < self.earliest else due.popitem(last=False)[0]
