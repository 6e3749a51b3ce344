"""Whether a destination can be reached: after failures in a row it is left alone, but for one probe at a time."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """Closed: all may go. Open until ``opens_at``, then one at a time until one gets through.

    ``pause_s`` gives the seconds of the n-th pause in a row.
    """

    __slots__ = ("_failures", "_pause_s", "_pauses", "_probing", "_trips_after", "opens_at")

    def __init__(self, trips_after: int, pause_s: Callable[[int], float]) -> None:
        self._trips_after = trips_after
        self._pause_s = pause_s
        self._failures = 0
        self._pauses = 0
        self._probing = False
        self.opens_at = -inf

    def may_send(self, now: float) -> bool:
        """Whether one more may go."""
        return self.opens_at == -inf or (now >= self.opens_at and not self._probing)

    def sent(self) -> None:
        """One went."""
        self._probing = self.opens_at > -inf

    def unsent(self) -> None:
        """One that went has not reached the destination, for reasons of ours."""
        self._probing = False

    def worked(self) -> None:
        """The destination answered, whatever it said."""
        self._failures = self._pauses = 0
        self._probing, self.opens_at = False, -inf

    def failed(self, now: float) -> None:
        """The destination did not answer. What was sent before the breaker opened adds nothing to the pause."""
        self._failures += 1
        if self._probing or (self.opens_at == -inf and self._failures >= self._trips_after):
            self._pauses += 1
            self.opens_at = now + self._pause_s(self._pauses)
        self._probing = False
