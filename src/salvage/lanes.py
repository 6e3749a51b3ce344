"""All lanes, and the agenda: which of them has a held task to let go, and when.

A lane stands in the agenda at the time at which its earliest task may go, as far as was known when it was
last touched; one that only an event can free does not stand there at all. So a tick touches only lanes that
have something to do.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from .held import Timetable
from .lane import Lane

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from collections.abc import Set as AbstractSet

    from ..values import Rng
    from .policy import SalvagePolicy

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

__all__ = ["Lanes"]


class Lanes(Generic[K]):
    """Lanes by name. They are as many as resources and local columns, and are never forgotten."""

    def __init__(self, policy: SalvagePolicy, rng: Rng) -> None:
        self._policy = policy
        self._rng = rng
        self.known: dict[str, Lane[K]] = {}
        """The lanes that were asked for before. To be read only."""
        self._agenda: Timetable[str] = Timetable()
        self._fresh: bool | AbstractSet[str] = False

    def at(self, name: str, now: float) -> Lane[K]:
        """Return the lane, new if it was not known."""
        try:
            return self.known[name]
        except KeyError:
            lane = self.known[name] = Lane(name, self._policy, self._rng, now)
            return lane

    def parked_tasks(self) -> int:
        """Return how many tasks are held on lanes that wait for a person."""
        return sum([len(lane.held) for lane in self.known.values() if lane.parked is not None])

    def touch(self, lane: Lane[K], now: float) -> None:
        """Put the lane where it now belongs: after every change to it."""
        at = self._ready_at(lane, now) if lane.held else inf
        if at < inf:
            self._agenda.set(lane.name, at)
        else:
            self._agenda.discard(lane.name)

    def expect_fresh(self, fresh_work: bool | AbstractSet[str], now: float) -> None:
        """Note which lanes fresh work waits for. True: some, unknown which; then those that lately sent
        some."""
        if fresh_work == self._fresh:
            return
        self._fresh = fresh_work if isinstance(fresh_work, bool) else frozenset(fresh_work)
        for lane in self.known.values():
            self.touch(lane, now)

    def ready(self, now: float) -> Lane[K] | None:
        """Return a lane whose earliest task may go now, the longest due first; None if there is none."""
        while (head := self._agenda.head()) is not None and head[0] <= now:
            lane = self.known[head[1]]
            if self._ready_at(lane, now) <= now:
                return lane
            self.touch(lane, now)
        return None

    def next_tick(self) -> float:
        """When a lane should be looked at next; inf for never."""
        head = self._agenda.head()
        return inf if head is None else head[0]

    def check(self) -> None:
        """Assert the invariants."""
        self._agenda.check()
        assert all(len(self.known[name].held) for name in self._agenda), "a lane that holds nothing has no time"
        for lane in self.known.values():
            lane.check()
            waits_for_event = not len(lane.held) or lane.parked is not None or lane.breaker.probing
            assert waits_for_event or lane.name in self._agenda, f"nothing wakes {lane.name}"

    def __getitem__(self, name: str) -> Lane[K]:
        return self.known[name]

    def __iter__(self) -> Iterator[Lane[K]]:
        return iter(self.known.values())

    def _ready_at(self, lane: Lane[K], now: float) -> float:
        if isinstance(self._fresh, bool):
            fresh = self._fresh and lane.pace.has_fresh_sends(now)
        else:
            fresh = lane.name in self._fresh
        return lane.ready_at(now, fresh=fresh)
