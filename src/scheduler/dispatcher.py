"""Which ready task of a run goes next: fair between columns, oldest row first inside one.

Decides the order of ready tasks per *lane* (a resource, or the share of local work). It knows nothing of capacity: the
caller pops a task when its lane has room. A lane without room costs nothing, however much is ready in it.

Flows are columns; they share a lane by weight with start-time fair queueing, and at equal virtual time the column
with the longest path still before it goes first. A column whose next task may not start for now is passed over: it
pays nothing for that turn, and takes none until it is recalled, or another task of it comes to be its next one.
Costs: O(log ready tasks of one flow) an operation.
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

_BACK, _FRESH, _LAST = 0, 1, 2
"""Places in a flow: before all that is new, as it came, behind all others."""

# Place; row order, in the last place size; sequence; unit. Numbers only: garbage collection passes over it.
_Entry = tuple[int, int, int, int]


class _Lane:
    """The columns that share a resource, or one column of local work, and how many of their tasks are ready. One that
    is ``alone`` there has every turn, and stands in no queue.
    """

    __slots__ = ("alone", "flows", "name", "queue", "ready")

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: FairQueue[int] = FairQueue()
        self.alone: _Flow | None = None
        self.flows: list[_Flow] = []
        self.ready = 0


class _Flow:
    """The ready tasks of one column, and how many of them are ``fresh``: ready for the first time.

    ``passed``: it takes no turns. ``refused``: its last turn was in vain, also once it takes turns again.
    """

    __slots__ = ("column", "fresh", "heap", "lane", "passed", "queued", "rank", "refused", "weight")

    def __init__(self, column: int, lane: _Lane, weight: float, rank: float) -> None:
        self.column = column
        self.lane = lane
        self.weight = weight
        self.rank = rank
        self.passed = False
        self.refused = False
        self.fresh = 0
        # Only entries in `queued`, which is by unit, are live.
        self.heap: list[_Entry] = []
        self.queued: dict[int, _Entry] = {}


class Dispatcher:
    """The ready tasks of one run.

    To be read only: ``total`` is how many there are in all lanes, ``woken`` the lanes to which tasks came lately,
    or whose columns take turns again, ``passed`` the columns that were passed over and have ready tasks.
    """

    __slots__ = ("_flows", "_lanes", "_popped", "_sequence", "passed", "total", "woken")

    def __init__(self) -> None:
        self.total = 0
        self.passed: dict[int, None] = {}
        self._popped: _Entry | None = None
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
        place.flows.append(flow)
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
        place = _BACK if again else _FRESH
        entry = queued[unit] = (place, order, self._sequence, unit)
        heappush(flow.heap, entry)
        lane.ready += 1
        flow.fresh += place
        self.total += 1
        self.woken[lane.name] = None
        if flow.passed:
            heap = flow.heap
            while queued.get(heap[0][3]) is not heap[0]:  # was discarded: it hides that the new one is the next
                heappop(heap)
            if heap[0] is entry:
                self._recall(flow)

    def discard(self, task: Ready) -> bool:
        """``task`` is not wanted any more. False if it was not ready (any more)."""
        column, unit = task
        flow = self._flows[column]
        entry = flow.queued.pop(unit, None)
        if entry is None:
            return False
        if not flow.queued:
            if flow.passed:
                self._recall(flow)
            elif flow.lane.alone is None:
                flow.lane.queue.remove(column)
        flow.lane.ready -= 1
        flow.fresh -= entry[0] == _FRESH
        self.total -= 1
        if len(flow.heap) > 2 * len(flow.queued) + _SPARE_ENTRIES:
            flow.heap = [entry for entry in flow.heap if flow.queued.get(entry[3]) is entry]
            heapify(flow.heap)
        return True

    def clear(self, lane: str, most: int) -> list[Task]:
        """Take out up to ``most`` of what is ready in ``lane``, whatever was passed over."""
        tasks: list[Task] = []
        for column in tuple(self.passed):
            if (flow := self._flows[column]).lane.name == lane:
                self._recall(flow)
        while len(tasks) < most and (task := self.pop(lane)) is not None:
            tasks.append(task)
        return tasks

    def pop(self, lane: str) -> Task | None:
        """The next task of ``lane``, or None if nothing is ready but in columns that were passed over. Its flow pays
        one turn.
        """
        place = self._lanes.get(lane)
        if place is None or not place.ready:
            return None
        flow = place.alone
        if flow is None:
            column = place.queue.head()
            if column is None:
                return None
            flow = self._flows[column]
        elif flow.passed:
            return None
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
        flow.fresh -= entry[0] == _FRESH
        flow.refused = False
        self.total -= 1
        self._popped = entry
        return _new(Task, (flow.column, unit))

    def put_back(self, task: Task, *, last: int | None = None) -> None:
        """``task``, popped just now, may not start: it is ready as before, and its turn is not paid for.

        Its column is passed over. ``last``: it is too large, and this its size. It stands behind all others of its
        column from now on, among those the smallest first, and the column is passed over only if it stood there
        already: then no other one is smaller.
        """
        column, unit = task
        flow, entry = self._flows[column], self._popped
        assert entry is not None
        assert entry[3] == unit, f"{task} was not popped just now"
        lane, pass_over = flow.lane, last is None or entry[0] == _LAST
        if last is not None:
            entry = (_LAST, last, *entry[2:])
        if lane.alone is None:
            lane.queue.refund(column, flow.weight)
            if pass_over:
                lane.queue.remove(column)
            else:
                lane.queue.add(column, flow.weight, flow.rank)
        self._popped = None
        flow.queued[unit] = entry
        heappush(flow.heap, entry)
        lane.ready += 1
        flow.fresh += entry[0] == _FRESH
        self.total += 1
        if pass_over:
            flow.passed = flow.refused = True
            self.passed[column] = None

    def recall(self) -> None:
        """Columns that were passed over take turns again: their lanes are woken."""
        for column in tuple(self.passed):
            self._recall(self._flows[column])

    def take_woken(self) -> dict[str, None]:
        """The lanes that were woken since the last call, in that order: the caller may want to serve them."""
        woken, self.woken = self.woken, {}
        return woken

    def ready(self, lane: str) -> int:
        """How many tasks of ``lane`` are ready."""
        place = self._lanes.get(lane)
        return 0 if place is None else place.ready

    def is_passed(self, lane: str) -> bool:
        """Whether tasks of ``lane`` are ready, and all of them in columns that were passed over."""
        place = self._lanes[lane]
        if not self.passed or not place.ready:
            return False
        return not place.queue if place.alone is None else place.alone.passed

    def fresh_lanes(self) -> set[str]:
        """The lanes in which tasks are ready that come for the first time, in columns that may start them as far as is
        known: that of a column whose last turn was in vain is not work that others have to wait for.
        """
        lanes: set[str] = set()
        for name, lane in self._lanes.items():
            for flow in lane.flows:
                if flow.fresh and not flow.refused:
                    lanes.add(name)
                    break
        return lanes

    def lane_of(self, task: Ready) -> str:
        """The lane to which ``task`` belongs."""
        return self._flows[task[0]].lane.name

    def lanes(self) -> tuple[str, ...]:
        """Every lane that has a flow."""
        return tuple(self._lanes)

    def check(self) -> None:
        """Assert that counts, queues and heaps agree."""
        counts = dict.fromkeys(self._lanes, 0)
        for column, flow in self._flows.items():
            counts[flow.lane.name] += len(flow.queued)
            assert (column in flow.lane.queue) == (bool(flow.queued) and flow.lane.alone is None and not flow.passed)
            assert flow.passed == (column in self.passed)
            assert flow.queued or not flow.passed
            assert flow.lane.alone in (None, flow), "two columns share a lane, and one of them counts as alone"
            assert flow.fresh == sum(entry[0] == _FRESH for entry in flow.queued.values())
            assert flow.refused or not flow.passed
            live = [entry for entry in flow.heap if flow.queued.get(entry[3]) is entry]
            assert len(live) == len(flow.queued)
        assert counts == {name: lane.ready for name, lane in self._lanes.items()}
        assert self.total == sum(counts.values())

    def _recall(self, flow: _Flow) -> None:
        flow.passed = False
        del self.passed[flow.column]
        if flow.queued:
            self.woken[flow.lane.name] = None
            if flow.lane.alone is None:
                flow.lane.queue.add(flow.column, flow.weight, flow.rank)
        else:
            flow.refused = False
