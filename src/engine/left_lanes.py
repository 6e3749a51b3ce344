"""Which lanes a run has given up: nothing worked there for too long, or only a person can open them again."""

from __future__ import annotations

from math import inf

__all__ = ["LeftLanes"]


class LeftLanes:
    """Lanes whose tasks are left for a later run. ``patience_s`` is how long a lane may go without a success."""

    __slots__ = ("_patience_s", "_worked_at", "lanes", "parked")

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._worked_at: dict[str, float] = {}
        self.lanes: set[str] = set()
        """Those that are left now. To be read only."""
        self.parked: set[str] = set()
        """Those of them that only a person can open. To be read only."""

    def worked(self, lane: str, now: float) -> None:
        """A task of ``lane`` succeeded: whatever comes to it is tried again, unless it is parked."""
        self._worked_at[lane] = now
        if self.lanes and lane not in self.parked:
            self.lanes.discard(lane)

    def leave(self, lane: str, now: float) -> bool:
        """A task's patience on ``lane`` is over. True if the lane is given up with it, now and not before."""
        if lane in self.lanes or now - self._worked_at.get(lane, -inf) < self._patience_s:
            return False
        self.lanes.add(lane)
        return True

    def park(self, lane: str) -> None:
        """Only a person can open ``lane`` again, and not during this run."""
        self.parked.add(lane)
        self.lanes.add(lane)
