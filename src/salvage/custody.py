"""Where each failed task is: held on a lane, or released to the engine; and when patience with it ends.

Knows a task from its first failure until it is forgotten. What a failure means, and when a task may go, is decided in
:mod:`.salvage` and :mod:`.lane`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from .entry import Entry
from .held import Timetable
from .history import History

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .lane import Lane
    from .lanes import Lanes

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

__all__ = ["Custody"]

_TURN_S = 60.0
"""How long a task that is past its patience, but only waits for its turn on a lane that is well, gets to take
it."""


class Custody(Generic[K]):
    """The known tasks, on these ``lanes``. Whoever moves one touches its lane afterwards. Times are machine seconds."""

    __slots__ = ("_expiry", "_lanes", "_patience_s", "held", "known")

    def __init__(self, lanes: Lanes[K], *, patience_s: float) -> None:
        self._lanes = lanes
        self._patience_s = patience_s
        self._expiry: Timetable[K] = Timetable()
        self.known: dict[K, Entry] = {}
        """To be read only, as is the next."""
        self.held = 0

    def begin(self, task: K, lane: str) -> Entry:
        """Know ``task``, which is released yet."""
        entry = self.known[task] = Entry(lane, History())
        return entry

    def place(self, task: K, entry: Entry, not_before: float, now: float) -> None:
        """Hold ``task`` on its lane. Patience begins with the first time."""
        entry.held, entry.not_before = True, not_before
        entry.patient_until = min(entry.patient_until, now + self._patience_s)
        self.held += 1
        self._lanes[entry.lane].held.set(task, not_before)
        if task not in self._expiry:
            self._expiry.set(task, entry.patient_until)

    def release(self, place: Lane[K], now: float) -> K:
        """Let go of the earliest task of ``place``."""
        task, token = place.take(now)
        entry = self.known[task]
        entry.held, entry.token = False, token
        self.held -= 1
        return task

    def forget(self, task: K) -> None:
        """``task`` is finished, held or not."""
        entry = self.known.pop(task)
        self._expiry.discard(task)
        if entry.held:
            self.held -= 1
            self._lanes[entry.lane].held.discard(task)

    def out_of_tries(self, task: K, entry: Entry, now: float) -> None:
        """Patience with ``task`` ends as soon as it is held."""
        entry.out_of_tries = True
        self._expiry.set(task, now)

    def overdue(self, now: float, most: int) -> list[K]:
        """The held tasks with which patience has ended, among the next ``most`` whose time has come."""
        found: list[K] = []
        for _ in range(most):
            head = self._expiry.head()
            if head is None or head[0] > now:
                break
            task = self._expiry.pop()
            entry = self.known[task]
            if not entry.held:
                continue  # it is being tried; a new failure puts it back
            waits_for_turn = entry.not_before <= now and self._lanes[entry.lane].well
            if entry.out_of_tries or not waits_for_turn:
                found.append(task)
            else:
                self._expiry.set(task, now + _TURN_S)
        return found

    def next_expiry(self) -> float:
        """When patience with a task ends next; inf for never."""
        head = self._expiry.head()
        return inf if head is None else head[0]

    def check(self) -> None:
        """Assert the invariants, but for a task that was just found overdue."""
        in_lanes = {task: place.name for place in self._lanes for task in place.held}
        assert in_lanes == {task: entry.lane for task, entry in self.known.items() if entry.held}
        assert self.held == len(in_lanes) == sum(len(place.held) for place in self._lanes)
        assert all(task in self._expiry for task in in_lanes), "a held task that patience cannot reach"
        assert all(task in self.known for task in self._expiry)
        for entry in self.known.values():
            entry.history.check()
        self._expiry.check()
