"""Which ready task of a run goes next: fair between columns, oldest row first inside one.

Decides the order of ready tasks per *lane* (a resource, or the share of local work). It knows nothing of capacity: the
caller pops a task when its lane has room. A lane without room costs nothing, however much is ready in it.

Flows are columns; they share a lane by weight with start-time fair queueing, and at equal virtual time the column
with the longest path still before it goes first. Costs: O(log ready tasks of one flow) an operation.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from ..admission.fair_queue import FairQueue
from .tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tasks import Ready

__all__ = ["Dispatcher"]

_SPARE_ENTRIES = 64

# What the constructor of a named tuple calls, a frame later.
_new: Final[Callable[[type[Task], Ready], Task]] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

# 0 for a task that comes back, else 1; row order; sequence; unit. Numbers only: garbage collection passes over it.
_Entry = tuple[int, int, int, int]


class _Lane:
    """The columns that share a resource, or one column of local work; how many of their tasks are ready, and how many
    of these for the first time. One that is ``alone`` there has every turn, and stands in no queue.
    """

    __slots__ = ("alone", "fresh", "name", "queue", "ready")

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: FairQueue[int] = FairQueue()
        self.alone: _Flow | None = None
        self.ready = 0
        self.fresh = 0


class _Flow:
    __slots__ = ("column", "heap", "lane", "queued", "rank", "weight")

    def __init__(self, column: int, lane: _Lane, weight: float, rank: float) -> None:
        self.column = column
        self.lane = lane
        self.weight = weight
        self.rank = rank
        # Only entries in `queued`, which is by unit, are live.
        self.heap: list[_Entry] = []
        self.queued: dict[int, _Entry] = {}


class Dispatcher:
    """The ready tasks of one run.

    To be read only: ``total`` is how many there are in all lanes, ``woken`` the lanes to which tasks came lately.
    """

    __slots__ = ("_flows", "_lanes", "_sequence", "total", "woken")

    def __init__(self) -> None:
        self.total = 0
        self._flows: dict[int, _Flow] = {}
        self._lanes: dict[str, _Lane] = {}
        self._sequence = 0
        self.woken: dict[str, None] = {}

    def add_flow(self, column: int, lane: str, *, weight: float = 1.0, rank: float = 0.0) -> None:
        """Tasks of ``column`` belong to ``lane``; a higher ``rank`` (longest remaining path) wins ties."""
        assert column not in self._flows
        place = self._lanes.get(lane)
        if place is None:
            place = self._lanes[lane] = _Lane(lane)
            flow = place.alone = _Flow(column, place, weight, rank)
        else:
            flow, other, place.alone = _Flow(column, place, weight, rank), place.alone, None
            if other is not None and other.queued:
                place.queue.add(other.column, other.weight, other.rank)  # from now on it takes turns
        self._flows[column] = flow

    def push(self, task: Ready, order: int, again: bool = False) -> None:
        """``task`` is ready. ``order`` is the age of its row; ``again`` puts it before all that are new."""
        column, unit = task
        flow = self._flows[column]
        queued, lane = flow.queued, flow.lane
        assert unit not in queued, f"{task} is ready twice"
        if not queued and lane.alone is None:
            lane.queue.add(column, flow.weight, flow.rank)
        self._sequence += 1
        fresh = 0 if again else 1
        entry = queued[unit] = (fresh, order, self._sequence, unit)
        heappush(flow.heap, entry)
        lane.ready += 1
        lane.fresh += fresh
        self.total += 1
        self.woken[lane.name] = None

    def discard(self, task: Ready) -> bool:
        """``task`` is not wanted any more. False if it was not ready (any more)."""
        column, unit = task
        flow = self._flows[column]
        entry = flow.queued.pop(unit, None)
        if entry is None:
            return False
        if not flow.queued and flow.lane.alone is None:
            flow.lane.queue.remove(column)
        flow.lane.ready -= 1
        flow.lane.fresh -= entry[0]
        self.total -= 1
        if len(flow.heap) > 2 * len(flow.queued) + _SPARE_ENTRIES:
            flow.heap = [entry for entry in flow.heap if flow.queued.get(entry[3]) is entry]
            heapify(flow.heap)
        return True

    def clear(self, lane: str, most: int) -> list[Task]:
        """Take out up to ``most`` of what is ready in ``lane``."""
        tasks: list[Task] = []
        while len(tasks) < most and (task := self.pop(lane)) is not None:
            tasks.append(task)
        return tasks

    def pop(self, lane: str) -> Task | None:
        """The next task of ``lane``, or None. Its flow pays one turn."""
        place = self._lanes.get(lane)
        if place is None or not place.ready:
            return None
        flow = place.alone
        if flow is None:
            column = place.queue.head()
            assert column is not None, f"{lane}: tasks are ready, and none of its columns waits"
            flow = self._flows[column]
        queued = flow.queued
        while True:
            entry = heappop(flow.heap)
            unit = entry[3]
            if queued.get(unit) is entry:  # the others were discarded
                break
        del queued[unit]
        if place.alone is None:
            if queued:
                place.queue.charge(flow.column)
            else:
                place.queue.remove(flow.column, 1.0)
        place.ready -= 1
        place.fresh -= entry[0]
        self.total -= 1
        return _new(Task, (flow.column, unit))

    def take_woken(self) -> dict[str, None]:
        """The lanes to which tasks came since the last call, in that order: the caller may want to serve them."""
        woken, self.woken = self.woken, {}
        return woken

    def ready(self, lane: str) -> int:
        """How many tasks of ``lane`` are ready."""
        place = self._lanes.get(lane)
        return 0 if place is None else place.ready

    def fresh_lanes(self) -> set[str]:
        """The lanes in which tasks are ready that come for the first time."""
        return {name for name, lane in self._lanes.items() if lane.fresh}

    def lane_of(self, task: Ready) -> str:
        """The lane to which ``task`` belongs."""
        return self._flows[task[0]].lane.name

    def lanes(self) -> tuple[str, ...]:
        """Every lane that has a flow."""
        return tuple(self._lanes)

    def check(self) -> None:
        """Assert that counts, queues and heaps agree."""
        counts = dict.fromkeys(self._lanes, 0)
        fresh = dict.fromkeys(self._lanes, 0)
        for column, flow in self._flows.items():
            counts[flow.lane.name] += len(flow.queued)
            assert (column in flow.lane.queue) == (bool(flow.queued) and flow.lane.alone is None)
            assert flow.lane.alone in (None, flow), "two columns share a lane, and one of them counts as alone"
            fresh[flow.lane.name] += sum(entry[0] for entry in flow.queued.values())
            live = [entry for entry in flow.heap if flow.queued.get(entry[3]) is entry]
            assert len(live) == len(flow.queued)
        assert counts == {name: lane.ready for name, lane in self._lanes.items()}
        assert fresh == {name: lane.fresh for name, lane in self._lanes.items()}
        assert self.total == sum(counts.values())
