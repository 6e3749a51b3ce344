"""Which ready task of a run goes next: fair between columns, oldest row first inside one.

Decides the order of ready tasks per *lane* (a resource, or the share of local work). It knows nothing of capacity: the
caller pops a task when its lane has room. A lane without room costs nothing, however much is ready in it.

Flows are columns; they share a lane by weight with start-time fair queueing, and at equal virtual time the column
with the longest path still before it goes first. Costs: O(log ready tasks of one flow) an operation.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from ..admission.fair_queue import FairQueue
from .frontier import Task

__all__ = ["Dispatcher"]

_SPARE_ENTRIES = 64

_Entry = tuple[int, int, int, Task]


class _Flow:
    __slots__ = ("heap", "lane", "queued", "rank", "weight")

    def __init__(self, lane: str, weight: float, rank: float) -> None:
        self.lane = lane
        self.weight = weight
        self.rank = rank
        # (0 for a task that comes back, else 1; row order; sequence; task). Only entries in `queued` are live.
        self.heap: list[_Entry] = []
        self.queued: dict[Task, _Entry] = {}


class Dispatcher:
    """The ready tasks of one run."""

    __slots__ = ("_flows", "_fresh", "_lanes", "_ready", "_sequence", "_woken")

    def __init__(self) -> None:
        self._flows: dict[int, _Flow] = {}
        self._lanes: dict[str, FairQueue[int]] = {}
        self._ready: dict[str, int] = {}
        self._fresh: dict[str, int] = {}
        self._sequence = 0
        self._woken: dict[str, None] = {}

    def add_flow(self, column: int, lane: str, *, weight: float = 1.0, rank: float = 0.0) -> None:
        """Tasks of ``column`` belong to ``lane``; a higher ``rank`` (longest remaining path) wins ties."""
        assert column not in self._flows
        self._flows[column] = _Flow(lane, weight, rank)
        self._lanes.setdefault(lane, FairQueue())
        self._ready.setdefault(lane, 0)
        self._fresh.setdefault(lane, 0)

    def push(self, task: Task, order: int, *, again: bool = False) -> None:
        """``task`` is ready. ``order`` is the age of its row; ``again`` puts it before all that are new."""
        flow = self._flows[task.column]
        assert task not in flow.queued, f"{task} is ready twice"
        self._sequence += 1
        entry = (0 if again else 1, order, self._sequence, task)
        flow.queued[task] = entry
        heappush(flow.heap, entry)
        self._lanes[flow.lane].add(task.column, flow.weight, flow.rank)
        self._ready[flow.lane] += 1
        self._fresh[flow.lane] += entry[0]
        self._woken[flow.lane] = None

    def discard(self, task: Task) -> bool:
        """``task`` is not wanted any more. False if it was not ready (any more)."""
        flow = self._flows[task.column]
        entry = flow.queued.pop(task, None)
        if entry is None:
            return False
        if not flow.queued:
            self._lanes[flow.lane].remove(task.column)
        self._count_out(flow, entry)
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
        queue = self._lanes.get(lane)
        if queue is None:
            return None
        column = queue.head()
        if column is None:
            return None
        flow = self._flows[column]
        while True:
            entry = heappop(flow.heap)
            if flow.queued.get(entry[3]) is entry:
                break
        del flow.queued[entry[3]]
        if flow.queued:
            queue.charge(column)
        else:
            queue.charge_last(column)
        self._count_out(flow, entry)
        return entry[3]

    def take_woken(self) -> dict[str, None]:
        """The lanes to which tasks came since the last call, in that order: the caller may want to serve them."""
        woken, self._woken = self._woken, {}
        return woken

    def ready(self, lane: str) -> int:
        """How many tasks of ``lane`` are ready."""
        return self._ready.get(lane, 0)

    def fresh_lanes(self) -> set[str]:
        """The lanes in which tasks are ready that come for the first time."""
        return {lane for lane, count in self._fresh.items() if count}

    def total(self) -> int:
        """How many tasks are ready in all lanes."""
        return sum(self._ready.values())

    def lanes(self) -> tuple[str, ...]:
        """Every lane that has a flow."""
        return tuple(self._lanes)

    def check(self) -> None:
        """Assert that counts, queues and heaps agree."""
        counts = dict.fromkeys(self._lanes, 0)
        fresh = dict.fromkeys(self._lanes, 0)
        for column, flow in self._flows.items():
            counts[flow.lane] += len(flow.queued)
            assert (column in self._lanes[flow.lane]) == bool(flow.queued)
            fresh[flow.lane] += sum(entry[0] for entry in flow.queued.values())
            live = [entry for entry in flow.heap if flow.queued.get(entry[3]) is entry]
            assert len(live) == len(flow.queued)
        assert counts == self._ready
        assert fresh == self._fresh

    def _count_out(self, flow: _Flow, entry: _Entry) -> None:
        self._ready[flow.lane] -= 1
        self._fresh[flow.lane] -= entry[0]
