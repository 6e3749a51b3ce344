"""The books of leases: which are out, which were given back, what a release of each one means.

A lease itself notes as the how manyth it came back, so nothing is kept of those that did: a second release of one of
the last few thousand is a ``duplicate``, of an earlier one ``stale``, and changes as little.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from .values import Lease, ReleaseResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from .scope import Passage
    from .values import Request

__all__ = ["LeaseBook"]

RELEASED_HISTORY = 4096
"""A second release is told from an ancient one for so many leases after the first."""

_RELEASED = ReleaseResult.RELEASED  # named once: looking up an enum's member is slow


class LeaseBook:
    """Numbers and keeps the leases of one gate. ``generation`` tells them from those of another gate."""

    __slots__ = ("_last", "_out", "_returned", "generation", "number")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.number: Callable[[], int] = count(1).__next__
        """Gives a number that no lease and no waiter has had."""
        self._last = 0
        self._out: dict[int, Lease] = {}
        self._returned = 0

    def __len__(self) -> int:
        return len(self._out)

    def open(
        self,
        resource: str,
        request: Request,
        now: float,
        waited_s: float,
        limit: float,
        epoch: int,
        passages: tuple[Passage, ...],
    ) -> Lease:
        """A lease goes out."""
        self._last = number = self.number()
        lease = self._out[number] = Lease()
        lease.id = number
        lease.generation = self.generation
        lease.resource = resource
        lease.request = request
        lease.acquired_at = now
        lease.waited_s = waited_s
        lease.limit = limit
        lease.epoch = epoch
        lease.passages = passages
        lease.usage = None
        lease.returned = 0
        return lease

    def is_out(self, lease: Lease) -> bool:
        """Whether ``lease`` is held by somebody."""
        return self._out.get(lease.id) is lease

    def close(self, lease: Lease) -> ReleaseResult:
        """``lease`` comes back; only ``released`` means that it counted."""
        if lease.generation != self.generation:
            return ReleaseResult.WRONG_GENERATION
        known = self._out.pop(lease.id, None)
        if known is lease:
            self._returned += 1
            lease.returned = self._returned
            return _RELEASED
        if known is not None:  # another gate of the same generation gave out this number, too
            self._out[lease.id] = known
            return ReleaseResult.WRONG_GENERATION
        if lease.returned and self._returned - lease.returned < RELEASED_HISTORY:
            return ReleaseResult.DUPLICATE
        return ReleaseResult.STALE if 0 < lease.id <= self._last else ReleaseResult.UNKNOWN

    def leases(self) -> list[Lease]:
        """Every lease that is out."""
        return list(self._out.values())

    def footprint(self) -> int:
        """Entries held."""
        return len(self._out)

    def check(self) -> None:
        """Assert the invariants."""
        assert not any(lease.returned for lease in self._out.values())
        assert len(self._out) + self._returned <= self._last
