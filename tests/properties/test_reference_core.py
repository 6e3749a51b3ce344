"""The core of a run does exactly what the rules say: the scheduler with values, salvage, records and counts around it.

The reference of ``test_reference_scheduler.py`` says what becomes of every cell, and whose turn it is; here it is asked
the same about a whole ``RunCore``, and beside it stand a store, a set of rows and a few sums, made anew each time. When
a held task comes back is salvage's business, which has properties of its own: here counts that it comes back as a task
that comes again, and not before its time. How many rows may come in is asked for what rows weigh, too.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import TYPE_CHECKING
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.engine import group_ends
from headgate.engine.core import RunCore
from headgate.engine.effects import Cancel
from headgate.engine.open_rows import OpenRows
from headgate.engine.records import Records
from headgate.engine.values import CellResult, OpenRow
from headgate.salvage import Salvage, SalvagePolicy
from headgate.salvage.classify import Failure
from headgate.salvage.kinds import FailureKind
from headgate.scheduler.tasks import CellState, Task
from headgate.scheduler.window import Window
from headgate.storage import RowRecord
from headgate.values import Usage
from tests.properties.core_books import STATES, Books, plans_of
from tests.properties.reference_scheduler import Column, Reference, ReferenceWindow, Step
from tests.properties.test_reference_scheduler import ENDS, LANES, PLACES, pipelines
from tests.properties.wired_scheduler import graph_of

if TYPE_CHECKING:
    from collections.abc import Iterator


MOST_OPEN = 28
MOST_BYTES = 600
SIZES = st.sampled_from((1, 5, 5, 40, 300))
PATIENCE_S = 10_000.0
NO_TOKENS = Usage()


class CoreMachine(RuleBasedStateMachine):
    """S1, S3, S5, S6, S8, D1, V4: whatever happens, in whatever order."""

    @initialize(
        columns=pipelines(),
        group_size=st.sampled_from((1, 3, 4)),
        finish_siblings=st.booleans(),
        verdicts=st.lists(st.sampled_from(("yes", "yes", "no", "breaks")), min_size=1, max_size=7),
        told_at_once=st.sampled_from((1, 64)),
    )
    def start(
        self, columns: list[Column], group_size: int, finish_siblings: bool, verdicts: list[str], told_at_once: int
    ) -> None:
        self.now = 0.0
        self.patches = [patch.object(group_ends, name, told_at_once) for name in ("ROWS_AT_ONCE", "CELLS_PER_PART")]
        for one in self.patches:
            one.start()
        self.columns, self.verdicts, self.group_size = columns, verdicts, group_size
        graph = graph_of(columns)
        plans = plans_of(columns, self._verdict)
        open_rows = OpenRows(plans)
        self.salvage: Salvage[Task] = Salvage(SalvagePolicy(patience_s=PATIENCE_S), rng=random.Random(1))
        self.core = RunCore(
            graph,
            plans,
            salvage=self.salvage,
            open_rows=open_rows,
            records=Records(open_rows.journal, plans, lambda: self.now),
            finish_siblings=finish_siblings,
            group_size=group_size,
            patience_s=PATIENCE_S,
        )
        self.plain = Reference(columns, group_size, finish_siblings)
        group_rows = group_size if any(column.group for column in columns) else 1
        self.window = Window(max_rows=MOST_OPEN, max_bytes=MOST_BYTES, group_rows=group_rows)
        self.plain_window = ReferenceWindow(MOST_OPEN, group_rows)
        self.all_cells: dict[tuple[int, int], CellState] = {}  # of every row that ever came
        self.books = Books(len(columns))

    def _verdict(self, task: Task) -> str:
        if not self.columns[task.column].conditional:
            return "yes"
        return self.verdicts[(3 * task.column + task.unit) % len(self.verdicts)]

    # What happens.

    @rule(most=st.integers(1, 9), size=SIZES, capacity=st.sampled_from((1, 3, 7, 20)))
    def rows_come_in(self, most: int, size: int, capacity: int) -> None:
        """As many as there is room for, until the bytes are full; a group that is begun is completed."""
        for _ in range(min(most, self._room(capacity))):
            row = len(self.books.weights)
            data = b"x" * size
            self.books.weights[row] = size
            group = self.core.groups.number + (not self.core.owed)
            self.core.add_row(OpenRow(RowRecord(row, f"id{row}", b"", data), {"row": row}), None, self.now)
            step = self.plain.add_row(row, group)
            self.follow(step)
            if not self.core.owed:
                self.follow(self.plain.seal(group))
            self._performed(())
            if self.core.open.bytes >= MOST_BYTES and not (self.plain_window.group_rows > 1 and self.core.owed):
                return

    @rule()
    def a_group_stays_short(self) -> None:
        if self.core.owed:
            self.core.seal()
            self.follow(self.plain.seal(self.core.groups.number))

    @rule(starts=st.integers(1, 6), ends=st.lists(st.tuples(st.integers(0, 99), ENDS, SIZES), max_size=5))
    def go_on(self, starts: int, ends: list[tuple[int, CellState, int]]) -> None:
        for lane in LANES:
            for _ in range(starts):
                task = self.core.dispatcher.pop(lane)
                assert task == self.plain.next(lane)
                if task is not None:
                    self._check_inputs(task)
        for which, end, size in ends:
            if self.plain.running:
                task = sorted(self.plain.running)[which % len(self.plain.running)]
                self._end(task, end, size, mixed=bool(which % 2))

    @rule(
        turns=st.lists(
            st.tuples(
                st.integers(1, 9),
                SIZES,
                st.integers(1, 6),
                st.lists(st.tuples(st.integers(0, 99), ENDS, SIZES), max_size=5),
            ),
            min_size=2,
            max_size=5,
        )
    )
    def so_it_goes(self, turns: list[tuple[int, int, int, list[tuple[int, CellState, int]]]]) -> None:
        """Most of the time."""
        for rows, size, starts, ends in turns:
            self.rows_come_in(rows, size, 20)
            self.go_on(starts, ends)
            self.all_agrees()

    @rule(places=PLACES, wait_s=st.sampled_from((0.0, 5.0)))
    def pressure(self, places: list[int], wait_s: float) -> None:
        for place in places:
            if not self.plain.running:
                return
            task = sorted(self.plain.running)[place % len(self.plain.running)]
            rows = self.plain.rows_of(task)
            self.plain.running.remove(task)
            self.plain.held.append(task)
            lane = self.columns[task.column].lane
            failure = Failure(FailureKind.RATE_LIMITED, "429", 429)
            self.core.failed(task, failure, NO_TOKENS, self.now, lane=lane, cooldown_until=self.now + wait_s)
            self._performed(())
            item = self.salvage.item(task)
            assert item is not None
            assert item.not_before >= self.now + wait_s
            waiting = self.core.journal._held  # pyright: ignore[reportPrivateUsage]
            for row in rows:
                assert waiting[row, f"c{task.column}"].not_before == item.not_before

    @rule(later_s=st.sampled_from((0.0, 1.0, 30.0)))
    def time_passes(self, later_s: float) -> None:
        self.now += later_s
        due_at = {item.task: item.not_before for item in map(self.salvage.item, self.plain.held) if item}
        let_go: list[Task] = []
        due = self.salvage.due

        def seen(now: float, *, fresh_work: bool | set[str], limit: int = 1000) -> list[Task]:
            let_go.extend(due(now, fresh_work=fresh_work, limit=limit))
            return let_go

        with patch.object(self.salvage, "due", seen):
            self.core.tick(self.now)
        for task in let_go:
            assert due_at[task] <= self.now
            self.plain.held.remove(task)
            self.plain.put(task, again=True)
        self._performed(())

    @rule(parts=st.sampled_from((1, 3, 100)), take=st.integers(0, 5))
    def commit(self, parts: int, take: int) -> None:
        """What waits becomes durable; some of what is finished by that is taken."""
        if not self.core.journal.waiting:
            return
        batch = self.core.journal.take()
        self.books.commit(batch)
        for part in batch.parts(parts):
            self.core.open.committed(part)
        for row in self.core.finished:
            if row.record.row not in self.books.out:
                self.books.out.append(row.record.row)
        for _ in range(min(take, len(self.core.finished))):
            self._take()

    def _take(self) -> None:
        row = self.core.open.take()
        self.books.taken.append(row.index)
        states = {column: self.all_cells[row.index, column] for column in range(len(self.columns))}
        assert self.books.durable(row.index)
        assert {f"c{c}" for c, state in states.items() if state is CellState.DONE} == set(row.values)
        assert {f"c{c}" for c, state in states.items() if state is not CellState.DONE} == set(row.problems)
        failed, done = CellState.FAILED in states.values(), CellState.DONE in states.values()
        assert row.status == ("failed" if failed else "done" if done else "skipped")

    # What the events consist of.

    def follow(self, event: Step) -> list[Task]:
        """Let the reference carry out what an event brought about. Returns what was running or held and is unwanted."""
        gone: list[Task] = []
        todo = deque((event,))
        while todo:
            step = todo.popleft()
            out = {*self.plain.running, *self.plain.held}
            gone += [task for task in self.plain.forget(step.unwanted) if task in out]
            for task in step.ready:
                if task not in self.plain.tasks():
                    continue
                verdict = self._verdict(task)
                if verdict == "yes":
                    self.plain.put(task)
                else:
                    end = CellState.SKIPPED if verdict == "no" else CellState.FAILED
                    todo.append(self.plain.end(task, {task.unit: end}))
        self.all_cells.update({(row, column): state for (row, column), state in self.plain.state.items()})
        return gone

    def _end(self, task: Task, end: CellState, size: int, *, mixed: bool) -> None:
        rows = self.plain.rows_of(task)
        self.plain.running.remove(task)
        if not self.columns[task.column].group or not mixed:
            outcomes = dict.fromkeys(rows, end)
        else:
            outcomes = {row: CellState.FAILED if row % 2 else CellState.DONE for row in rows}
        outcomes = {r: state if state is CellState.DONE else CellState.FAILED for r, state in outcomes.items()}
        rejected = Failure(FailureKind.REJECTED, "400", 400)
        lane = self.columns[task.column].lane
        if CellState.DONE in outcomes.values():
            results = [
                CellResult(row, row, b"1" * size) if state is CellState.DONE else CellResult(row, failure=rejected)
                for row, state in outcomes.items()
            ]
            for row, state in outcomes.items():
                self.books.weights[row] += size if state is CellState.DONE else 0
            self.core.succeeded(task, results, NO_TOKENS, self.now, sent_at=self.now)
        else:
            self.core.failed(task, rejected, NO_TOKENS, self.now, lane=lane)
        self._performed(self.follow(self.plain.end(task, outcomes)))

    def _performed(self, unwanted: tuple[Task, ...] | list[Task]) -> None:
        while self.core.unfinished:
            self.core.go_on()
            half = self.core.unfinished and self.core.journal.ready
            assert not half, "half of what belongs together would be committed"
        cancelled = [effect.task for effect in self.core.drain_effects() if isinstance(effect, Cancel)]
        # Beside them only tasks that a broken condition closed in the same step, before they came to be anywhere.
        assert not Counter(unwanted) - Counter(cancelled)
        for task in Counter(cancelled) - Counter(unwanted):
            rows = self.plain.rows_in(task.unit) if self.columns[task.column].group else [task.unit]
            assert {self.all_cells[row, task.column] for row in rows} == {CellState.SKIPPED}
        for task in cancelled:
            self.core.cancelled(task, self.now)

    def _check_inputs(self, task: Task) -> None:
        """S3: the body gets what its row, or each live row of its group, has of all that it needs."""
        rows, arguments = self.core.inputs(task)
        needs = self.columns[task.column].parents
        given = list(rows) if self.columns[task.column].group else task.unit
        assert list(rows) == self.plain.rows_of(task)
        assert arguments == {"row": given, **{f"c{parent}": given for parent in needs}}

    def _room(self, capacity: int) -> int:
        """As many as the horizon and the rows allow, and fit by their weight: counted up one by one."""
        core = self.core
        untaken = len(core.finished)
        owed = core.owed if self.plain_window.group_rows > 1 else 0
        open_rows = min(len(core.rows) + untaken, MOST_OPEN - owed)
        load = self.plain.load() + untaken
        room = self.window.room(
            capacity=capacity,
            load=core.frontier.load + untaken,
            open_rows=open_rows,
            open_bytes=core.open.expected_bytes(),
            row_bytes=core.open.row_bytes,
            owed=owed,
        )
        assert core.open.row_bytes == float(self.books.row_bytes())
        by_rows = self.plain_window.room(capacity, load, open_rows, owed)
        fit = self.books.fit(MOST_BYTES, open_rows, owed, self.plain_window.group_rows)
        starved = load == 0 and (open_rows == 0 or owed > 0)
        assert room == max(min(by_rows, fit), 1 if starved else 0)
        return room

    # What is so at any time.

    def _closed(self) -> dict[tuple[int, int], CellState]:
        return {key: state for key, state in self.all_cells.items() if state > CellState.HELD}

    @invariant()
    def all_agrees(self) -> None:
        if not hasattr(self, "plain"):
            return
        core = self.core
        core.check()
        assert core.frontier.load == self.plain.load()
        for lane in LANES:
            in_lane = self.plain.in_lane(lane)
            assert core.dispatcher.ready(lane) == len(in_lane)
            assert (lane in core.dispatcher.fresh_lanes()) == any(not again for _, again in in_lane)
        assert core.salvage.held == len(self.plain.held)
        closed = self._closed()
        assert self.books.cells_in_store.items() <= closed.items(), "what was committed is what happened"
        waiting = {(cell.row, int(cell.column[1:])) for cell in core.journal._cells}  # pyright: ignore[reportPrivateUsage]
        assert waiting == closed.keys() - self.books.cells_in_store.keys(), "everything that happened is on its way"
        untaken = [row for row in self.books.out if row not in self.books.taken]
        assert [row.record.row for row in core.finished] == untaken
        assert core.rows.keys() == self.books.weights.keys() - set(self.books.out)
        assert core.open.bytes == sum(
            weight for row, weight in self.books.weights.items() if row not in self.books.taken
        )
        assert all(self.books.durable(row) for row in self.books.out)
        assert sorted(self.books.out) == [row for row in self.books.weights if self.books.durable(row)]
        self._counts_add_up(closed)

    def _counts_add_up(self, closed: dict[tuple[int, int], CellState]) -> None:
        tally = self.core.tally
        assert tally.accepted == len(self.books.weights)
        for column in range(len(self.columns)):
            mine = Counter(state for (_, c), state in self.books.cells_in_store.items() if c == column)
            counted = tally.columns[f"c{column}"]
            assert (counted.done, counted.failed, counted.skipped) == tuple(mine[state] for state in STATES.values())
        assert self.core.ledger.total == sum(state is CellState.FAILED for state in closed.values())

    def teardown(self) -> None:
        """Everything comes back, ends well and is committed, or is left for a later run: each row counts once."""
        if not hasattr(self, "plain"):
            return
        try:
            self.a_group_stays_short()
            for _ in self._rounds():
                self.time_passes(60.0)
                self.go_on(6, [(0, CellState.DONE, 1)] * 40)
            self.commit(3, 0)
            while self.core.finished:
                self._take()
            self.all_agrees()
            assert sorted(self.books.taken) == list(self.books.weights)
        finally:
            for one in self.patches:
                one.stop()

    def _rounds(self) -> Iterator[int]:
        number = 0
        while self.plain.tasks():
            assert number < 500, "it does not come to an end"
            yield number
            number += 1


TestReferenceCore = CoreMachine.TestCase
TestReferenceCore.settings = settings(stateful_step_count=settings().stateful_step_count // 2)
