"""Which lanes a run has given up, and their tasks: nothing worked there for too long, or only a person can open them.

Such tasks are held by the frontier and known to nobody else, until a later run takes them up. A lane may have thousands
that are ready; they are taken out of the queue in parts.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..salvage.salvage import Salvage
    from ..scheduler.dispatcher import Dispatcher
    from ..scheduler.frontier import Frontier
    from ..scheduler.tasks import Task

__all__ = ["LEFT_PER_STEP", "LeftLanes"]

LEFT_PER_STEP = 512
"""Ready tasks of a lane that was given up, and open rows at the end of a run, that are left for a later run before the
loop gets a turn."""


class LeftLanes:
    """Lanes whose tasks are left for a later run. ``patience_s`` is how long a lane may go without a success."""

    __slots__ = (
        "_dispatcher",
        "_frontier",
        "_patience_s",
        "_salvage",
        "_worked_at",
        "emptying",
        "lanes",
        "parked",
        "tasks",
    )

    def __init__(self, patience_s: float, frontier: Frontier, dispatcher: Dispatcher, salvage: Salvage[Task]) -> None:
        self._patience_s = patience_s
        self._frontier = frontier
        self._dispatcher = dispatcher
        self._salvage = salvage
        self._worked_at: dict[str, float] = {}
        self.lanes: set[str] = set()
        """Those that are left now. To be read only."""
        self.parked: set[str] = set()
        """Those of them that only a person can open. To be read only."""
        self.emptying: dict[str, None] = {}
        """Those of them that have ready tasks yet, in the order in which they were given up. To be read only."""
        self.tasks: set[Task] = set()
        """Tasks that are left. To be read only."""

    def worked(self, lane: str, now: float) -> None:
        """A task of ``lane`` succeeded: whatever comes to it is tried again, unless it is parked."""
        self._worked_at[lane] = now
        if self.lanes and lane not in self.parked:
            self.lanes.discard(lane)

    def expired(self, task: Task, lane: str, now: float) -> bool:
        """The patience of ``task``, which is held on ``lane``, is over. True if the lane is given up with it, now and
        not before.
        """
        self.tasks.add(task)
        if lane in self.lanes or now - self._worked_at.get(lane, -inf) < self._patience_s:
            return False
        self._leave(lane)
        return True

    def park(self, lane: str) -> None:
        """Only a person can open ``lane`` again, and not during this run."""
        self.parked.add(lane)
        self._leave(lane)

    def give_up(self, task: Task, now: float) -> None:
        """``task``, which is ready, is left."""
        if self._frontier.hold(task):
            self.tasks.add(task)
            self._salvage.dropped(task, now)

    def cancelled(self, task: Task) -> None:
        """Nobody wants ``task`` any more, in a later run neither."""
        self.tasks.discard(task)

    def go_on(self, now: float) -> None:
        """Take one more part of the ready tasks out of the queue. A lane where something worked meanwhile keeps those
        that it still has.
        """
        for lane in tuple(self.emptying):
            tasks = self._dispatcher.clear(lane, LEFT_PER_STEP) if lane in self.lanes else []
            for task in tasks:
                self.give_up(task, now)
            if len(tasks) < LEFT_PER_STEP:
                del self.emptying[lane]

    def _leave(self, lane: str) -> None:
        self.lanes.add(lane)
        if self._dispatcher.ready(lane):
            self.emptying[lane] = None
