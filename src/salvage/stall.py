"""When a run as a whole has waited long enough: its deadline, and no progress anywhere.

Decides only that; what then happens to the held tasks is the engine's. Patience with a single task is in
:mod:`.salvage`.
"""

from __future__ import annotations

from math import inf
from typing import Literal

__all__ = ["StallClock", "StallVerdict"]

StallVerdict = Literal["stalled", "deadline"]


class StallClock:
    """Two limits: ``stall_timeout_s`` without a finished cell, and ``deadline_at`` in machine time."""

    __slots__ = ("_progress_at", "_stall_timeout_s", "deadline_at", "ends_at")

    def __init__(self, now: float, *, stall_timeout_s: float = inf, deadline_at: float = inf) -> None:
        assert stall_timeout_s > 0
        self._stall_timeout_s = stall_timeout_s
        self._progress_at = now
        self.deadline_at = deadline_at
        self.ends_at = min(deadline_at, self._stalls_at())
        """When a verdict can next appear by the passing of time alone. To be read only."""

    def progress(self, now: float) -> None:
        """A cell finished somewhere."""
        if now > self._progress_at:
            self._progress_at = now
            self.ends_at = now + self._stall_timeout_s
            if self.deadline_at < self.ends_at:
                self.ends_at = self.deadline_at

    def verdict(self, now: float) -> StallVerdict | None:
        """Which limit has passed, the deadline first; None while neither has."""
        if now >= self.deadline_at:
            return "deadline"
        if now >= self._stalls_at():
            return "stalled"
        return None

    def next_tick(self, now: float) -> float:
        """When a verdict can next appear by the passing of time alone; never before ``now``."""
        return max(now, self.ends_at)

    def check(self) -> None:
        """Assert the invariants."""
        assert self.ends_at == min(self.deadline_at, self._stalls_at())
        assert self._stalls_at() >= self._progress_at

    def _stalls_at(self) -> float:
        return self._progress_at + self._stall_timeout_s
