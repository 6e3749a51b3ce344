"""The fast scheduler decides exactly what a plain one decides that recomputes everything from the rules at each step.

Random pipelines (graphs, weights, group columns, conditions, several lanes) and random events (rows come in, tasks end
in every way, are held, come back, are cancelled; lanes close and open; groups are sealed). After each event both must
have the same tasks ready, cancel the same, let in as many rows, and give each lane's next turn to the same task.

Weights are powers of two here, so that the floating-point virtual times are exact and every tie is a tie for both;
``test_dispatcher.py`` has other weights.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.scheduler.tasks import CellState, Progress, Task
from headgate.scheduler.window import Window
from tests.properties.reference_scheduler import Column, Reference, ReferenceWindow, Step
from tests.properties.wired_scheduler import Fast

LANES = ("m", "n")
WEIGHTS = (Fraction(1), Fraction(1), Fraction(1), Fraction(2), Fraction(1, 4))
ENDS = st.sampled_from((CellState.DONE, CellState.DONE, CellState.DONE, CellState.FAILED, CellState.SKIPPED))
PLACES = st.lists(st.integers(0, 99), max_size=3)
MOST_OPEN = 28


@st.composite
def pipelines(draw: st.DrawFn) -> list[Column]:
    """Up to six columns, a parent always before its child."""
    columns: list[Column] = []
    for number in range(draw(st.sampled_from((1, 3, 4, 6)))):
        above = st.lists(st.sampled_from(range(number)), unique=True, max_size=3) if number else st.just([])
        group = draw(st.sampled_from((False, False, True)))
        conditional = not group and draw(st.sampled_from((False, False, True)))
        lane, weight = draw(st.sampled_from(LANES)), draw(st.sampled_from(WEIGHTS))
        columns.append(Column(tuple(sorted(draw(above))), lane, weight, group, conditional))
    return columns


class SchedulerMachine(RuleBasedStateMachine):
    """S3, S5, S6, S8: which task is next is what the rules say, whatever was counted on the way there."""

    @initialize(
        columns=pipelines(),
        group_size=st.sampled_from((1, 3, 4)),
        finish_siblings=st.booleans(),
        verdicts=st.lists(st.sampled_from(("yes", "yes", "no", "breaks")), min_size=1, max_size=7),
        capacity=st.sampled_from((0, 1, 3, 7, 12, 20)),
    )
    def start(
        self, columns: list[Column], group_size: int, finish_siblings: bool, verdicts: list[str], capacity: int
    ) -> None:
        note(f"{columns}")
        self.columns = columns
        self.fast = Fast(columns, group_size, finish_siblings, verdicts)
        self.plain = Reference(columns, group_size, finish_siblings)
        group_rows = group_size if any(column.group for column in columns) else 1
        self.window = Window(max_rows=MOST_OPEN, max_bytes=1, group_rows=group_rows)
        self.plain_window = ReferenceWindow(MOST_OPEN, group_rows)
        self.group_rows = group_rows
        self.rows = 0
        self.owed = 0
        self.capacity = capacity
        self.closed_lanes: set[str] = set()
        self.woken: list[str] = []
        self.late: list[Task] = []

    # What both are told.

    def follow(self, event: Step, progress: Progress) -> None:
        """Let both carry out what an event brought about."""
        self.fast.cancelled.clear()
        self.fast.follow(progress)
        unwanted: list[Task] = []
        todo = deque((event,))
        while todo:
            step = todo.popleft()
            running = set(self.plain.running)
            gone = self.plain.forget(step.unwanted)
            self.late += [task for task in gone if task in running]
            unwanted += gone
            for task in step.ready:
                if task not in self.plain.tasks():
                    continue
                match self.fast.verdict(task):
                    case "no":
                        todo.append(self.plain.end(task, {task.unit: CellState.SKIPPED}))
                    case "breaks":
                        todo.append(self.plain.end(task, {task.unit: CellState.FAILED}))
                    case _:
                        self.plain.put(task)
                        self.woken.append(self.columns[task.column].lane)
        assert sorted(self.fast.cancelled) == sorted(unwanted)
        assert sorted(self.fast.running) == sorted(self.plain.running)
        assert sorted(self.fast.held) == sorted(self.plain.held)

    @rule(
        turns=st.lists(
            st.tuples(st.integers(0, 6), st.lists(st.tuples(st.integers(0, 99), ENDS), max_size=4)),
            min_size=1,
            max_size=6,
        )
    )
    def go_on(self, turns: list[tuple[int, list[tuple[int, CellState]]]]) -> None:
        """So it goes most of the time: rows come in, free slots are filled, some tasks end, again and again."""
        for starts, ends in turns:
            self._let_rows_in(MOST_OPEN)
            self._serve(starts)
            for which, end in ends:
                if self.plain.running:
                    running = sorted(self.plain.running)
                    self._end(running[which % len(running)], end)
            self.all_agrees()

    @rule(most=st.integers(1, 8))
    def a_slow_source(self, most: int) -> None:
        """It gives only some of the rows that there is room for."""
        self._let_rows_in(most)

    @rule(data=st.data())
    def end_row_by_row(self, data: st.DataObject) -> None:
        groups = sorted(task for task in self.plain.running if self.columns[task.column].group)
        if not groups:
            return
        task = data.draw(st.sampled_from(groups), label="group task")
        rows = self.plain.rows_of(task)
        assert self.fast.frontier.live_rows(task) == rows
        outcomes = {row: data.draw(ENDS, label=f"row {row}") for row in rows}
        self._leave(task)
        lost = {row: state for row, state in outcomes.items() if state is not CellState.DONE}
        self.follow(self.plain.end(task, outcomes), self.fast.frontier.finish_group(task, lost, {}))

    @rule(held=PLACES, back=PLACES)
    def meet_pressure(self, held: list[int], back: list[int]) -> None:
        """Some tasks keep no slot until they come back, and others come back."""
        for place in back:
            if self.plain.held:
                self._resume(sorted(self.plain.held)[place % len(self.plain.held)])
        for place in held:
            if self.plain.running:
                task = sorted(self.plain.running)[place % len(self.plain.running)]
                self._leave(task)
                self._hold(task)

    @rule(what=st.sampled_from(("lane", "capacity", "seal", "give up", "late")), number=st.integers(0, 20))
    def something_rare(self, what: str, number: int) -> None:
        lane = LANES[number % len(LANES)]
        match what:
            case "lane":
                self.closed_lanes ^= {lane}
            case "capacity":
                self.capacity = number
            case "seal":
                self._seal_a_short_group()
            case "give up":
                self._give_up(lane)
            case _:
                self._report_a_cancelled_one(number)

    # What the events consist of.

    def _let_rows_in(self, most: int) -> None:
        for _ in range(most):
            if not self._room():
                return
            row, group = self.rows, self.rows // self.plain.group_size
            self.rows += 1
            self.follow(self.plain.add_row(row, group), self.fast.frontier.add_row(row, group))
            if self.rows % self.plain.group_size == 0:
                self.follow(self.plain.seal(group), self.fast.frontier.seal_group(group))
            self.owed = -self.rows % self.group_rows

    def _seal_a_short_group(self) -> None:
        """The source pauses, and what is there is a group of its own."""
        if self.rows % self.plain.group_size:
            group = self.rows // self.plain.group_size
            self.rows = (group + 1) * self.plain.group_size
            self.owed = 0
            self.follow(self.plain.seal(group), self.fast.frontier.seal_group(group))

    def _serve(self, most: int) -> None:
        """Slots are free in every lane. A closed one is not asked, and nothing of it may be lost by that."""
        for lane in LANES:
            for _ in range(0 if lane in self.closed_lanes else most):
                assert self.fast.next(lane) == self.plain.next(lane)

    def _give_up(self, lane: str) -> None:
        """Nothing worked there for too long: all that is ready there is held instead."""
        given_up = [task for task, _ in self.plain.in_lane(lane)]
        assert sorted(self.fast.dispatcher.clear(lane, 10**6)) == sorted(given_up)
        for task in given_up:
            self.plain.take_out(task)
            self._hold(task)

    def _report_a_cancelled_one(self, number: int) -> None:
        """It could not be stopped in time. Nothing changes by it."""
        if self.late:
            for report in (self.fast.frontier.finish, self.fast.frontier.skip):
                self.follow(Step([]), report(self.late[number % len(self.late)]))

    def _room(self) -> int:
        frontier = self.fast.frontier
        room = self.window.room(
            capacity=self.capacity, load=frontier.load, open_rows=frontier.counts().open_rows, owed=self.owed
        )
        open_rows = len(self.plain.open_rows())
        assert room == self.plain_window.room(self.capacity, self.plain.load(), open_rows, self.owed)
        return room

    def _end(self, task: Task, end: CellState) -> None:
        frontier = self.fast.frontier
        self._leave(task)
        step = self.plain.end(task, dict.fromkeys(self.plain.rows_of(task), end))
        match end:
            case CellState.DONE:
                self.follow(step, frontier.finish(task))
            case CellState.FAILED:
                self.follow(step, frontier.fail(task, "poisoned"))
            case _:
                self.follow(step, frontier.skip(task))

    def _leave(self, task: Task) -> None:
        self.plain.running.remove(task)
        self.fast.running.remove(task)

    def _hold(self, task: Task) -> None:
        assert self.fast.frontier.hold(task)
        self.plain.held.append(task)
        self.fast.held.append(task)

    def _resume(self, task: Task) -> None:
        self.plain.held.remove(task)
        self.fast.held.remove(task)
        assert self.fast.frontier.resume(task)
        self.plain.put(task, again=True)
        self.fast.push(task, again=True)
        self.woken.append(self.columns[task.column].lane)

    # What both must agree on at any time.

    @invariant()
    def all_agrees(self) -> None:
        self._same_is_ready()
        self._room()  # the window is asked after each event
        self._every_task_is_somewhere()

    def _same_is_ready(self) -> None:
        fast, plain = self.fast, self.plain
        fast.frontier.check()
        fast.dispatcher.check()
        for lane in LANES:
            in_lane = plain.in_lane(lane)
            assert fast.dispatcher.ready(lane) == len(in_lane)
            assert (lane in fast.dispatcher.fresh_lanes()) == any(not again for _, again in in_lane)
        assert list(fast.dispatcher.take_woken()) == list(dict.fromkeys(self.woken))
        self.woken.clear()

    def _every_task_is_somewhere(self) -> None:
        """What may run is queued, out or held, each in one place and nothing else: no task is lost, none doubled."""
        places = [*self.plain.queued(), *self.plain.running, *self.plain.held]
        assert sorted(places) == sorted(self.plain.tasks())
        for task in places:
            held = task in self.plain.held
            assert self.fast.frontier.task_state(task) == (CellState.HELD if held else CellState.READY)
        assert self.fast.frontier.load == self.plain.load()
        assert self.fast.frontier.counts().open_rows == len(self.plain.open_rows())

    def teardown(self) -> None:
        """Everything comes back and everything works: the same task is next each time, and every cell ends."""
        if not hasattr(self, "plain"):
            return
        self._seal_a_short_group()
        while self.plain.tasks():
            for task in sorted(self.plain.held):
                self._resume(task)
            for lane in LANES:
                assert self.fast.next(lane) == self.plain.next(lane)
            for task in sorted(self.plain.running):
                self._end_if_wanted(task)
        assert self.fast.frontier.counts().open_rows == 0
        assert not any(self.fast.dispatcher.ready(lane) for lane in LANES)

    def _end_if_wanted(self, task: Task) -> None:
        if task in self.plain.running:
            self._end(task, CellState.DONE)


TestReferenceScheduler = SchedulerMachine.TestCase
