"""The books of leases: which are out, which were given back, what a release of each one means.

The history of released leases is bounded: a release after it is ``stale`` instead of ``duplicate``, and changes as
little.
"""

from __future__ import annotations

from collections import deque

from .values import Lease, ReleaseResult

__all__ = ["LeaseBook"]

RELEASED_HISTORY = 4096
"""How many released leases are remembered to tell a second release from an ancient one."""


class LeaseBook:
    """Numbers and keeps the leases of one gate. ``generation`` tells them from those of another gate."""

    __slots__ = ("_last", "_order", "_out", "_released", "generation")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self._last = 0
        self._out: dict[int, Lease] = {}
        self._order: deque[int] = deque()
        self._released: set[int] = set()

    def __len__(self) -> int:
        return len(self._out)

    def number(self) -> int:
        """A number that no lease and no waiter has had."""
        self._last += 1
        return self._last

    def open(self, lease: Lease) -> None:
        """``lease`` goes out."""
        self._out[lease.id] = lease

    def is_out(self, lease: Lease) -> bool:
        """Whether ``lease`` is held by somebody."""
        return self._out.get(lease.id) is lease

    def close(self, lease: Lease) -> ReleaseResult:
        """``lease`` comes back; only ``released`` means that it counted."""
        if lease.generation != self.generation:
            return ReleaseResult.WRONG_GENERATION
        if self._out.pop(lease.id, None) is not None:
            self._remember(lease.id)
            return ReleaseResult.RELEASED
        if lease.id in self._released:
            return ReleaseResult.DUPLICATE
        return ReleaseResult.STALE if 0 < lease.id <= self._last else ReleaseResult.UNKNOWN

    def leases(self) -> list[Lease]:
        """Every lease that is out."""
        return list(self._out.values())

    def footprint(self) -> int:
        """Entries held."""
        return len(self._out) + len(self._released)

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self._released) == len(self._order) <= RELEASED_HISTORY
        assert self._released.isdisjoint(self._out)

    def _remember(self, number: int) -> None:
        if len(self._order) == RELEASED_HISTORY:
            self._released.discard(self._order.popleft())
        self._order.append(number)
        self._released.add(number)
