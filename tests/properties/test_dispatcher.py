"""The dispatcher of ready tasks against a plain list: nothing lost, oldest first, fair by weight (S5)."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.scheduler.dispatcher import Dispatcher
from headgate.scheduler.frontier import Task

LANES = {0: "m", 1: "m", 2: "n", 3: "m"}
WEIGHTS = {0: 1.0, 1: 2.0, 2: 1.0, 3: 0.5}


class DispatcherMachine(RuleBasedStateMachine):
    """Random pushes, discards and pops; the model is a dict of ready tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher()
        for column, lane in LANES.items():
            self.dispatcher.add_flow(column, lane, weight=WEIGHTS[column], rank=column)
        self.ready: dict[Task, tuple[int, int]] = {}
        self.serial = 0

    @rule(column=st.sampled_from(sorted(LANES)), row=st.integers(0, 50), again=st.booleans())
    def push(self, column: int, row: int, again: bool) -> None:
        task = Task(column, row)
        if task in self.ready:
            return
        self.dispatcher.push(task, row, again=again)
        self.ready[task] = (0 if again else 1, row)
        assert LANES[column] in self.dispatcher.take_woken()

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.ready)))
        assert self.dispatcher.discard(task)
        assert not self.dispatcher.discard(task)
        del self.ready[task]

    @rule(lane=st.sampled_from(["m", "n", "unknown"]))
    def pop(self, lane: str) -> None:
        task = self.dispatcher.pop(lane)
        mine = {one: key for one, key in self.ready.items() if LANES[one.column] == lane}
        if task is None:
            assert not mine
            return
        key = self.ready.pop(task)
        assert key == min(key for one, key in mine.items() if one.column == task.column), "not the oldest of its flow"

    @invariant()
    def counts_agree(self) -> None:
        self.dispatcher.check()
        assert self.dispatcher.total == len(self.ready)
        for lane in ("m", "n"):
            mine = [key for task, key in self.ready.items() if LANES[task.column] == lane]
            assert self.dispatcher.ready(lane) == len(mine)
            assert (lane in self.dispatcher.fresh_lanes()) == any(fresh for fresh, _ in mine)


TestDispatcher = DispatcherMachine.TestCase


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=6), st.integers(10, 60))
def test_s5_columns_share_a_lane_by_weight(weights: list[float], pops: int) -> None:
    """S5: while two columns both have ready tasks, turns divided by weight differ by at most one turn each."""
    dispatcher = Dispatcher()
    for column, weight in enumerate(weights):
        dispatcher.add_flow(column, "m", weight=weight)
        for row in range(pops):
            dispatcher.push(Task(column, row), row)
    served = [0.0] * len(weights)
    for _ in range(pops):
        task = dispatcher.pop("m")
        assert task is not None
        served[task.column] += 1.0 / weights[task.column]
        for i, one in enumerate(weights):
            for j, other in enumerate(weights):
                assert served[i] - served[j] <= 1.0 / one + 1.0 / other + 1e-9


def test_at_equal_virtual_time_the_longest_remaining_path_goes_first() -> None:
    """Of flows that have had nothing yet, the one with the longest way still to go starts."""
    dispatcher = Dispatcher()
    for column, rank in enumerate([1, 3, 2]):
        dispatcher.add_flow(column, "m", rank=rank)
        dispatcher.push(Task(column, 0), 0)
    assert [dispatcher.pop("m") for _ in range(3)] == [Task(1, 0), Task(2, 0), Task(0, 0)]
