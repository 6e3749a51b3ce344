"""What a turn costs where slots are what is short: the time for which its slot will be taken.

A request that lasts ten times longer takes ten times as much of a limit on concurrency. So where several share one,
each pays for its turns with the seconds for which its requests have lately held their slots, known from those that
came back. Who has not been seen pays what the others pay on average.

Source: start-time fair queueing charges a packet by its length (Goyal, Vin, Cheng, 1996); here the length is learned.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

__all__ = ["SlotTime"]

K = TypeVar("K", bound=Hashable)

_WEIGHT: Final = 1 / 8
"""Of the latest request in the mean: some ten requests show a change, and one that hung is soon forgotten."""
_MOST_TURNS: Final = 64.0
_LEAST_TURNS: Final = 1.0 / _MOST_TURNS
"""A turn costs at most so many average ones, and at least as small a part of one: nobody waits for ever for who seemed
to be slow once."""
_KEPT: Final = 256
"""Sharers remembered, the latest. Who was forgotten is average until it is seen again."""


class SlotTime(Generic[K]):
    """The mean seconds for which the requests of each sharer hold a slot."""

    __slots__ = ("_held_s", "_sum_s")

    def __init__(self) -> None:
        self._held_s: dict[K, float] = {}
        self._sum_s = 0.0

    def __len__(self) -> int:
        return len(self._held_s)

    def learn(self, key: K, held_s: float) -> None:
        """A request of ``key`` held its slot for ``held_s`` seconds."""
        known = self._held_s
        before = known.pop(key, None)
        if before is None:
            known[key] = held_s
            if len(known) > _KEPT:
                del known[next(iter(known))]
            self._sum_s = sum(known.values())  # anew, also against what rounding adds up to
            return
        change = _WEIGHT * (held_s - before)
        known[key] = before + change  # and at the end: those not seen for longest are forgotten first
        self._sum_s += change

    def turn(self, key: K) -> float:
        """What a turn of ``key`` costs; 1 is one of the average sharer."""
        known = self._held_s
        if self._sum_s <= 0.0:
            return 1.0
        mean_s = self._sum_s / len(known)
        turns = known.get(key, mean_s) / mean_s
        if turns >= _MOST_TURNS:
            return _MOST_TURNS
        if turns <= _LEAST_TURNS:
            return _LEAST_TURNS
        return turns
