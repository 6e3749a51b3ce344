"""The dispatcher of ready tasks against a plain list: nothing lost, oldest first, fair by weight (S5).

Some tasks that are popped may not start: they come back, and their columns are passed over.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
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
        self.ready: dict[Task, tuple[int, int, int]] = {}
        self.passed: set[int] = set()
        self.refused: set[int] = set()
        self.pushed = 0

    @rule(column=st.sampled_from(sorted(LANES)), row=st.integers(0, 50), again=st.booleans())
    def push(self, column: int, row: int, again: bool) -> None:
        task = Task(column, row)
        if task in self.ready:
            return
        self.dispatcher.push(task, row, again=again)
        self.pushed += 1
        self.ready[task] = (0 if again else 1, row, self.pushed)
        if column in self.passed and self.next_of(column) == task:
            self.passed.discard(column)
        assert LANES[column] in self.dispatcher.take_woken()

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.ready)))
        assert self.dispatcher.discard(task)
        assert not self.dispatcher.discard(task)
        del self.ready[task]
        if task.column in self.passed - {one.column for one in self.ready}:
            self.passed.discard(task.column)
            self.refused.discard(task.column)

    def next_of(self, column: int) -> Task:
        return min((task for task in self.ready if task.column == column), key=self.ready.__getitem__)

    @rule(
        lane=st.sampled_from(["m", "n", "unknown"]),
        starts=st.sampled_from(["yes", "yes", "not now", "too large"]),
        size=st.integers(0, 50),
    )
    def pop(self, lane: str, starts: str, size: int) -> None:
        task = self.dispatcher.pop(lane)
        if task is None:
            assert {one.column for one in self.ready if LANES[one.column] == lane} <= self.passed
            return
        assert task.column not in self.passed
        assert task == self.next_of(task.column), "not the oldest of its flow"
        self.refused.discard(task.column)
        if starts == "yes":
            del self.ready[task]
            return
        too_large = starts == "too large"
        self.dispatcher.put_back(task, last=size if too_large else None)
        if not too_large or self.ready[task][0] == 2:
            self.passed.add(task.column)
            self.refused.add(task.column)
        if too_large:
            sequence = self.ready[task][2]
            self.ready[task] = (2, size, sequence)

    @rule()
    def recall(self) -> None:
        self.dispatcher.recall()
        assert self.dispatcher.take_woken().keys() == {LANES[column] for column in self.passed}
        self.passed.clear()

    @rule(lane=st.sampled_from(["m", "n"]), most=st.integers(1, 3))
    def clear(self, lane: str, most: int) -> None:
        mine = {task for task in self.ready if LANES[task.column] == lane}
        cleared = self.dispatcher.clear(lane, most)
        assert len(cleared) == min(most, len(mine))
        assert mine.issuperset(cleared)
        for task in cleared:
            del self.ready[task]
        recalled = {column for column in self.passed if LANES[column] == lane}
        self.passed -= recalled
        # Somebody has to look at what is left, should the lane not be emptied after all.
        assert self.dispatcher.take_woken().keys() == {LANES[column] for column in recalled}
        self.refused -= {task.column for task in cleared}

    @invariant()
    def counts_agree(self) -> None:
        self.dispatcher.check()
        assert self.dispatcher.total == len(self.ready)
        for lane in ("m", "n"):
            mine = [(task.column, key) for task, key in self.ready.items() if LANES[task.column] == lane]
            assert self.dispatcher.ready(lane) == len(mine)
            fresh = {column for column, key in mine if key[0] == 1}
            assert (lane in self.dispatcher.fresh_lanes()) == bool(fresh - self.refused)
            waiting = {task.column for task in self.ready if LANES[task.column] == lane}
            assert self.dispatcher.is_passed(lane) == (bool(waiting) and waiting <= self.passed)
        assert self.dispatcher.passed.keys() == self.passed


DispatcherMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
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


@pytest.mark.parametrize("ready", [1, 2])
def test_a_refused_turn_is_not_paid_for(ready: int) -> None:
    """A turn of a column of little weight costs it four of the other's. ``ready``: with its last task, or not."""
    dispatcher = Dispatcher()
    for column, weight in enumerate([0.25, 1.0]):
        dispatcher.add_flow(column, "m", weight=weight, rank=-column)
        for row in range(ready if column == 0 else 50):
            dispatcher.push(Task(column, row), row)
    assert dispatcher.pop("m") == Task(0, 0)
    dispatcher.put_back(Task(0, 0))
    assert dispatcher.pop("m") == Task(1, 0)
    dispatcher.recall()
    assert [dispatcher.pop("m") for _ in range(2)] == [Task(0, 0), Task(1, 1)]


def test_a_column_whose_refused_tasks_are_gone_is_not_passed_over_any_more() -> None:
    """Else a run that has nothing left to do would look like one that lacks the budget for it."""
    dispatcher = Dispatcher()
    dispatcher.add_flow(0, "m")
    dispatcher.add_flow(1, "m")
    for column in (0, 1):
        dispatcher.push(Task(column, 0), 0)
        assert dispatcher.pop("m") == Task(column, 0)
        dispatcher.put_back(Task(column, 0))
    assert dispatcher.is_passed("m")
    for column in (0, 1):
        assert dispatcher.discard(Task(column, 0))
        dispatcher.check()
    assert not dispatcher.passed


def test_a_new_next_task_recalls_its_column_also_where_the_refused_one_was_discarded() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_flow(0, "m")
    dispatcher.push(Task(0, 5), 5)
    dispatcher.push(Task(0, 9), 9, again=True)
    assert dispatcher.pop("m") == Task(0, 9)
    dispatcher.put_back(Task(0, 9))
    assert dispatcher.discard(Task(0, 9))
    dispatcher.push(Task(0, 7), 7)
    assert dispatcher.is_passed("m"), "the one of row 5 is still the next"
    dispatcher.push(Task(0, 2), 2)
    assert dispatcher.pop("m") == Task(0, 2)
