"""What a turn costs where slots are what is short: the time for which its slot will be taken.

A request that lasts ten times longer takes ten times as much of a limit on concurrency. So where several share one,
each pays for its turns with the seconds for which its requests have lately held their slots, known from those that
came back. Who has not been seen pays as much as all on average.

Source: start-time fair queueing charges a packet by its length (Goyal, Vin, Cheng, 1996); here the length is learned.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["SlotTime"]

K = TypeVar("K", bound=Hashable)

_WEIGHT = 1 / 8
"""Of the latest request in the mean: some ten requests show a change, and one that hung is soon forgotten."""
_MOST_TURNS = 64.0
"""A turn costs at most so many average ones, and at least as small a part of one: nobody waits for ever for who seemed
to be slow once."""
_KEPT = 256
"""Sharers remembered, the latest. Who was forgotten is average until it is seen again."""


class SlotTime(Generic[K]):
    """The mean seconds for which the requests of each sharer hold a slot."""

    __slots__ = ("_held_s", "_mean_s")

    def __init__(self) -> None:
        self._held_s: dict[K, float] = {}
        self._mean_s = 0.0

    def __len__(self) -> int:
        return len(self._held_s)

    def learn(self, key: K, held_s: float) -> None:
        """A request of ``key`` held its slot for ``held_s`` seconds."""
        known = self._held_s
        before = known.pop(key, held_s)  # and back at the end: the oldest are forgotten first
        known[key] = before + _WEIGHT * (held_s - before)
        self._mean_s = self._mean_s + _WEIGHT * (held_s - self._mean_s) if self._mean_s else held_s
        if len(known) > _KEPT:
            del known[next(iter(known))]

    def turn(self, key: K) -> float:
        """What a turn of ``key`` costs; 1 is an average one."""
        mean_s = self._mean_s
        if mean_s <= 0.0:
            return 1.0
        return min(_MOST_TURNS, max(1.0 / _MOST_TURNS, self._held_s.get(key, mean_s) / mean_s))
