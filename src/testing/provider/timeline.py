"""How busy a model was over time: its account again, cut into slices of equal length.

It counts and decides nothing. The number of slices is bounded: when a run outlasts them, two neighbours become one and
every slice is twice as long from then on, so a look at an hour costs as much as one at a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SLICES_MAX", "SLICE_S", "Slice", "Timeline"]

SLICE_S: Final = 0.25  # fine enough to see a ramp of seconds
SLICES_MAX: Final = 4096  # even, so that neighbours pair up; 17 minutes at the finest


@dataclass(frozen=True, slots=True)
class Slice:
    """``seconds`` from ``at_s`` (both after the provider's first request): the integrals of requests in flight and of
    the concurrency limit (None if there was none at any time), and how many requests were accepted and rejected.
    """

    at_s: float
    seconds: float
    busy_s: float
    capacity_s: float | None
    accepted: int
    rejected: int


@dataclass(slots=True)
class _Counts:
    """What a model did in one slice of time."""

    busy_s: float = 0.0
    capacity_s: float | None = 0.0
    accepted: int = 0
    rejected: int = 0

    def add(self, other: _Counts) -> None:
        self.busy_s += other.busy_s
        known = self.capacity_s is not None and other.capacity_s is not None
        self.capacity_s = (self.capacity_s or 0.0) + (other.capacity_s or 0.0) if known else None
        self.accepted += other.accepted
        self.rejected += other.rejected


class Timeline:
    """The slices since ``now``. ``advance`` comes before each count, so that a count falls into its slice."""

    def __init__(self, now: float) -> None:
        self._start_s = self._at = now
        self._slice_s = SLICE_S
        self._slices = [_Counts()]

    def advance(self, now: float, in_flight: int, concurrency: int | None) -> None:
        """Carry the integrals on to ``now``: ``in_flight`` under this limit since the last call."""
        assert now >= self._at, "time went back"
        while (end := self._end_s()) <= now:
            self._fill(end, in_flight, concurrency)
            self._next()
        self._fill(now, in_flight, concurrency)

    def count(self, *, accepted: bool) -> None:
        """Count a request that arrived at the time of the last ``advance``."""
        self._slices[-1].accepted += accepted
        self._slices[-1].rejected += not accepted

    def slices(self) -> tuple[Slice, ...]:
        """Return all slices; the last one is as long as it is old."""
        last = len(self._slices) - 1
        return tuple(
            Slice(
                at_s=number * self._slice_s,
                seconds=self._slice_s if number < last else self._at - self._start_s - last * self._slice_s,
                busy_s=counts.busy_s,
                capacity_s=counts.capacity_s,
                accepted=counts.accepted,
                rejected=counts.rejected,
            )
            for number, counts in enumerate(self._slices)
        )

    def _end_s(self) -> float:
        return self._start_s + len(self._slices) * self._slice_s

    def _fill(self, until: float, in_flight: int, concurrency: int | None) -> None:
        passed, self._at = until - self._at, until
        now = self._slices[-1]
        now.busy_s += in_flight * passed
        if concurrency is None:
            now.capacity_s = None if passed > 0 else now.capacity_s
        elif now.capacity_s is not None:
            now.capacity_s += concurrency * passed

    def _next(self) -> None:
        if len(self._slices) == SLICES_MAX:
            for one, other in zip(self._slices[::2], self._slices[1::2], strict=True):
                one.add(other)
            del self._slices[1::2]
            self._slice_s *= 2
        self._slices.append(_Counts())
