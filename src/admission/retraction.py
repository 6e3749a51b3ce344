"""What a concurrency law was before its latest rejections, in case they prove to be about something else.

Decides nothing. An unlabelled rejection is guessed to be about concurrency until several of them show that it is not;
then the law has to return to where it was before the first of them. Whether a guess was wrong is decided by whoever
guessed it, what to do with the memory in :mod:`headgate.admission.concurrency`.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .ceiling import CeilingState
    from .probing import ProbingState

__all__ = ["Before", "Past"]

APART_S: Final = 1.0
"""Rejections closer together are one burst with one state before it."""

REMEMBERED: Final = 32
"""So many bursts are remembered: half a minute of the densest, hours of a law that only probes."""


class Before(NamedTuple):
    """The law at the moment ``at`` (seconds, monotonic), before a rejection moved it.

    ``rejections`` is their number until then, ``measurement`` the last one, its level and moment.
    """

    at: float
    ceiling: CeilingState
    probing: ProbingState
    measurement: tuple[float, float]
    consecutive: int
    rejections: int


class Past:
    """The states before the latest bursts of rejections, oldest first; bounded."""

    __slots__ = ("_last_at", "_states")

    def __init__(self) -> None:
        self._states: deque[Before] = deque(maxlen=REMEMBERED)
        self._last_at: deque[float] = deque(maxlen=REMEMBERED)  # of each burst, its last rejection

    def begins(self, now: float) -> bool:
        """A rejection came at ``now``. Whether it begins a burst of its own, whose state before is to be added."""
        if self._states and now - self._states[-1].at < APART_S:
            self._last_at[-1] = now
            return False
        return True

    def add(self, state: Before) -> None:
        """Remember ``state``; the oldest is forgotten when there are too many."""
        self._states.append(state)
        self._last_at.append(state.at)

    def back_to(self, since: float) -> Before | None:
        """The state before the first burst with a rejection at ``since`` (seconds, monotonic) or later; it and all
        later ones are forgotten. None if none is remembered.
        """
        found: Before | None = None
        while self._last_at and self._last_at[-1] >= since:
            self._last_at.pop()
            found = self._states.pop()
        return found

    def check(self) -> None:
        """Assert that the states are in the order of time, one for each burst."""
        before = -inf
        for state, last_at in zip(self._states, self._last_at, strict=True):
            assert state.at - before >= APART_S, "one burst, one state"
            assert state.at <= last_at < state.at + APART_S
            before = state.at
