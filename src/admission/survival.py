"""Was a request accepted, long before it completes? A fast provider rejects at once, so silence means
acceptance.

Decides how long the silence must be (:class:`Silence`) and which of the watched requests kept it
(:class:`Watch`). What acceptance means for the limit is decided in :mod:`headgate.admission.concurrency`.
"""

from __future__ import annotations

from collections import OrderedDict
from math import exp2, inf

from .law_values import TAU_HALF_LIFE_S, TAU_MAX_S, TAU_MIN_S, TAU_ROUND_TRIPS, Stamp

__all__ = ["Silence", "Watch"]


class Silence:
    """``tau``: after so many seconds without a rejection a request counts as accepted.

    It follows the slowest rejection (``slowest_s``), which is forgotten by half a minute by minute.
    """

    __slots__ = ("_seen_at", "slowest_s", "tau")

    def __init__(self) -> None:
        self.tau = TAU_MIN_S
        self.slowest_s = 0.0
        self._seen_at = 0.0

    def recall(self, tau: float) -> None:
        """Begin with the ``tau`` of an earlier law, until the first rejection."""
        self.tau = min(TAU_MAX_S, max(TAU_MIN_S, tau))

    def observe(self, round_trip_s: float, now: float) -> None:
        """A rejection took ``round_trip_s`` from sending to receipt."""
        age_s = max(0.0, now - self._seen_at)
        decayed = self.slowest_s * exp2(-age_s / TAU_HALF_LIFE_S)
        self.slowest_s = max(round_trip_s, decayed)
        self._seen_at = now
        self.tau = min(TAU_MAX_S, max(TAU_MIN_S, TAU_ROUND_TRIPS * self.slowest_s))


class Watch:
    """The requests whose acceptance is news, oldest first; never more than are in flight.

    An ordered dict: a deque cannot drop the one in the middle that was answered, and a plain dict walks over
    its deleted head. ``stamps``, to be read only, is empty most of the time.
    """

    __slots__ = ("stamps",)

    def __init__(self) -> None:
        self.stamps: OrderedDict[int, Stamp] = OrderedDict()

    def __len__(self) -> int:
        return len(self.stamps)

    def add(self, stamp: Stamp) -> None:
        """Watch ``stamp``; they are handed in by the order of sending."""
        self.stamps[stamp.seq] = stamp

    def drop(self, stamp: Stamp) -> None:
        """Its fate is known, or does not matter."""
        if self.stamps:
            self.stamps.pop(stamp.seq, None)

    def clear(self) -> None:
        """Nothing that was sent so far is news any more."""
        if self.stamps:
            self.stamps.clear()

    def take(self, sent_by: float) -> Stamp | None:
        """Take out the oldest if it was sent at ``sent_by`` (seconds, monotonic) or earlier."""
        if not self.stamps:
            return None  # most of the time there is nothing to watch
        for stamp in self.stamps.values():
            if stamp.sent_at <= sent_by:
                del self.stamps[stamp.seq]
                return stamp
            break
        return None

    def next_at(self, tau: float) -> float:
        """When the oldest will have been silent for ``tau`` seconds; ``inf`` if none is watched."""
        if not self.stamps:
            return inf
        for stamp in self.stamps.values():
            return stamp.sent_at + tau
        return inf

    def check(self) -> None:
        """Assert that the order is that of sending."""
        before = -inf
        for seq, stamp in self.stamps.items():
            assert stamp.seq == seq
            assert stamp.sent_at >= before, "watched out of order"
            before = stamp.sent_at
