"""The decisions of one run: what each event means for rows, tasks, records and lanes.

Composes the scheduler's frontier and dispatcher, the salvage machine and the journal, and does no I/O: the shell in
:mod:`headgate.engine.steps` tells it what happened, takes tasks to start from the dispatcher, and performs the effects
that it drains after each step. Times are seconds on the run's monotonic clock.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..salvage.classify import Failure
from ..salvage.decisions import Fail, HeldItem, LaneParked
from ..salvage.kinds import FailureKind
from ..scheduler.dispatcher import Dispatcher
from ..scheduler.frontier import Frontier, Progress, Task
from ..scheduler.tasks import READY, SKIPPED
from ..values import Usage
from .conditions import arguments_of, arguments_of_all, condition_holds
from .effects import Abandoned, Cancel, CoreEffect
from .group_ends import GroupEnd, GroupEnds, GroupHold
from .grouping import Grouping
from .held_before import HeldBefore
from .left_lanes import LEFT_PER_STEP, LeftLanes
from .outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..salvage.salvage import Salvage
    from ..scheduler.graph import Graph
    from ..scheduler.tasks import Ready
    from .open_rows import OpenRows
    from .records import Records
    from .restore import Restored
    from .values import CellResult, ColumnPlan, OpenRow

__all__ = ["HELD_PER_JOB", "HELD_PER_STEP", "RunCore"]

HELD_PER_STEP = 64
HELD_PER_JOB = 2
"""Held tasks that one step, and one that the end of a job takes, brings back or gives up. Thousands may be due at one
moment, the end of a cooldown or of patience (T25)."""


class RunCore:
    """All decisions of a run but those of admission. Its parts are public, to look at."""

    def __init__(
        self,
        graph: Graph,
        plans: tuple[ColumnPlan, ...],
        *,
        salvage: Salvage[Task],
        open_rows: OpenRows,
        records: Records,
        finish_siblings: bool,
        group_size: int,
        patience_s: float,
        set_aside: frozenset[Task] = frozenset(),
    ) -> None:
        self.plans = plans
        self.salvage = salvage
        self.frontier = Frontier(graph, finish_siblings=finish_siblings)
        self.dispatcher = Dispatcher()
        self.open = open_rows
        self.journal = self.open.journal
        self.effects: list[CoreEffect] = []
        self._outcomes = Outcomes(open_rows, records.wall_clock, self.effects)
        self.ledger = self._outcomes.ledger
        self.stopped = self._outcomes.stopped
        self.set_aside = set_aside
        self.tally = self.open.tally
        self.rows = self.open.rows
        self.finished = self.open.finished
        self.cells_closed = 0  # by an attempt of their own; what follows from them is not counted
        self._records = records
        self.groups = Grouping(group_size)
        self._ends = GroupEnds(self.frontier, self.journal, self._outcomes, records, self._follow, columns=len(plans))
        self.unfinished = False  # whether go_on has more to do
        self.left = LeftLanes(patience_s, self.frontier, self.dispatcher, salvage)
        self._again: set[Task] = set()
        self._fresh: set[str] = set()
        self._held_before = HeldBefore(plans, self.frontier, salvage)
        self._now = -inf  # the time of the event that is being handled
        starts = self.frontier.starts
        # Where nothing but its turn decides whether the first tasks of a row start.
        plain = starts is not None and all(plans[column].column.when_fn is None for column in starts)
        self._plain_starts = starts if plain else None
        for plan in self.plans:
            weight, rank = plan.column.spec.weight, graph.path_length[plan.index]
            self.dispatcher.add_flow(plan.index, plan.lane, weight=weight, rank=rank)

    # Rows come in

    def add_row(self, row: OpenRow, restored: Restored | None, now: float) -> None:
        """Accept a row, with what an earlier run committed about it."""
        self._now = now
        self.tally.accepted += 1
        if restored is not None and restored.whole:
            self.open.pass_through(row, restored)
            return
        self.open.open(row, restored)
        index = row.position
        if restored is not None:
            progress = self.frontier.add_row(index, self.groups.place(), restored.states, row)
            self._held_before.take_from(progress.ready, restored.held, self.groups.number, now)
            self._follow(progress, restored.states)
        elif self._plain_starts is None or self.left.lanes:
            self._follow(self.frontier.add_row(index, self.groups.place(), None, row))
        else:  # almost every row: the same, without the words
            self.frontier.begin(index, self.groups.place(), row)
            push = self.dispatcher.push
            for column in self._plain_starts:
                push((column, index), index)
        if not self.groups.owed:
            self.seal()

    def seal(self) -> None:
        """The current group gets no more rows."""
        if self.groups.number >= 0:
            self.groups.close()
            self._follow(self.frontier.seal_group(self.groups.number))

    @property
    def owed(self) -> int:
        """How many rows the current group still lacks."""
        return self.groups.owed

    # Tasks end

    def succeeded(
        self, task: Task, results: Sequence[CellResult], usage: Usage, now: float, sent_at: float | None
    ) -> None:
        """``task`` yielded ``results``: one for its row, or one for each live row of its group."""
        self._now = now
        if self._again:
            self._again.discard(task)
        plan = self.plans[task.column]
        if plan.group:
            self._group_succeeded(task, plan, results, usage, sent_at)
            return
        finished = self.frontier.finish_leaf(task) if self.frontier.leaves[task.column] else None
        progress = None if finished is not None else self.frontier.finish(task)
        if progress is not None and not progress.closed:  # it came too late
            self.salvage.dropped(task, now)
            return
        self.cells_closed += 1
        self.left.worked(plan.lane, now)
        attempts = 1 + self.salvage.succeeded(task, plan.lane, now, sent_at)
        self._outcomes.done(plan, results[0], usage, attempts)
        if progress is not None:
            self._follow(progress)
        elif finished:
            self._row_finished(task.unit)

    def failed(
        self,
        task: Task,
        failure: Failure,
        usage: Usage,
        now: float,
        *,
        lane: str,
        cooldown_until: float = -inf,
        sent_at: float | None = None,
    ) -> None:
        """An attempt of ``task`` failed on ``lane``, usually that of its column."""
        self._now = now
        if self.frontier.task_state(task) != READY:
            self.cancelled(task, now)
            return
        decision = self.salvage.failed(task, lane, failure, now, cooldown_until=cooldown_until, sent_at=sent_at)
        self._take_salvage_effects()
        if isinstance(decision, Fail):
            self._again.discard(task)
            self._end_badly(task, decision, usage, failure.traceback)
            return
        self.frontier.hold(task)
        item = self.salvage.item(task)
        assert item is not None
        rows = self.live_rows(task)
        if rows and usage != Usage():
            self._records.spent(rows[0], task.column, failure.kind.value, usage)
        self._hold(item, rows, now)

    def cancelled(self, task: Task, now: float) -> None:
        """``task`` was stopped because nobody wants it any more."""
        self._again.discard(task)
        self.salvage.dropped(task, now)

    def sent(self, task: Task, plan: ColumnPlan, now: float) -> None:
        """The first request of ``task`` was let out."""
        self.salvage.sent(plan.lane, now, task not in self._again, task)

    def refused(self, task: Task, now: float) -> bool:
        """Whether ``task`` may not start: its lane was given up; or it fails, set aside or of a stopped column."""
        if self.plans[task.column].lane in self.left.emptying:
            self.give_up(task)
            return True
        kind, why = FailureKind.COLUMN_STOPPED, self.stopped.get(task.column)
        if self._is_set_aside(task):
            kind, why = FailureKind.SET_ASIDE, "set aside before the run began, so it was not tried"
        if why is None:
            return False
        self.cancelled(task, now)
        self._end_badly(task, Fail(kind, why, 0, None, kind), Usage(), None)
        return True

    def _is_set_aside(self, task: Task) -> bool:
        if not self.set_aside or not self.plans[task.column].group:
            return task in self.set_aside
        return any(Task(task.column, row) in self.set_aside for row in self.live_rows(task))  # a group ends as one

    # Time

    def tick(self, now: float, most: int = HELD_PER_STEP) -> None:
        """Bring back held tasks whose time has come, give up those held for too long: up to ``most`` of each. Only
        needed while any is known to salvage."""
        self._now = now
        salvage = self.salvage
        due = salvage.next_tick(now) <= now
        if not due and not salvage.held:
            return
        # Held tasks keep to a pace while fresh work exists, so its end is news like the passing of time.
        fresh = self.dispatcher.fresh_lanes()
        if not due and fresh == self._fresh:
            return
        self._fresh = fresh
        for item in salvage.expired(now, limit=most):
            self._hold(item, self.live_rows(item.task), now)
            if self.left.expired(item.task, item.lane, now):
                self.unfinished = self.unfinished or bool(self.left.emptying)
                self.effects.append(Abandoned(item.lane, f"{item.reason.value} {item.history['last_message']}".strip()))
        for task in salvage.due(now, fresh_work=fresh, limit=most):
            if self.frontier.resume(task):
                self._again.add(task)
                self._queue(task, self.plans[task.column], True)
        self._take_salvage_effects()

    def go_on(self) -> None:
        """Do one more part of what concerns too many tasks or rows for one step."""
        self._ends.go_on()
        self.left.go_on(self._now)
        self.unfinished = bool(self.left.emptying) or len(self._ends) > 0

    def drain_effects(self) -> list[CoreEffect]:
        """What the shell has to perform since the last call."""
        effects = self.effects.copy()
        self.effects.clear()
        return effects

    def leave_open(self) -> Iterator[None]:
        """The run ends here: whatever is open is held for a later run. Yields where the loop may have a turn."""
        for count, index in enumerate(self.rows, 1):
            self.open.leave(index, [column for column, _ in self.frontier.unfinished(index)])
            if not count % LEFT_PER_STEP:
                yield

    # Questions

    def inputs(self, task: Task) -> tuple[Sequence[int], dict[str, object]]:
        """The rows that ``task`` is about, in order, and the keyword arguments for its body."""
        column, unit = task
        plan = self.plans[column]
        if not plan.group:
            return (unit,), arguments_of(plan.arguments, plan.optional, self.rows[unit])
        rows = self.frontier.live_rows(task)
        return rows, arguments_of_all(plan.arguments, plan.optional, [self.rows[row] for row in rows])

    def live_rows(self, task: Task) -> list[int]:
        """The rows that ``task`` is about."""
        return self.frontier.live_rows(task) if self.plans[task.column].group else [task.unit]

    @property
    def pending(self) -> int:
        """Tasks that will run without anybody's help: ready ones, and held ones whose lane is not parked."""
        return self.dispatcher.total + self.salvage.waiting

    def check(self) -> None:
        """Assert the invariants of every part, and those between them."""
        self.frontier.check()
        self.dispatcher.check()
        self.salvage.check()
        assert self.frontier.counts().held_tasks == self.salvage.held + len(self.left.tasks)
        self.open.check()

    # What follows

    def _follow(self, progress: Progress, known: Mapping[int, int] | None = None) -> None:
        """Carry out what the frontier concluded, and what that leads to. ``known`` cells are on record already."""
        todo, grown = [progress], False
        for step in todo:  # it grows meanwhile
            for row, column, state, reason in step.closed:
                if state == SKIPPED and not (known and column in known):
                    self._outcomes.skipped(row, self.plans[column], reason)
            for task in step.cancel:
                self._cancel(task)
            for ready in step.ready:
                if grown and self.frontier.task_state(Task(*ready)) != READY:
                    continue  # an earlier failure in the same step closed it
                plan = self.plans[ready[0]]
                if plan.column.when_fn is None and not plan.group:
                    if self.left.lanes:
                        self._queue(ready, plan)
                    else:
                        self.dispatcher.push(ready, ready[1])
                elif (further := self._ready(Task(*ready), plan)) is not None:
                    todo.append(further)
                    grown = True
            for index in step.finished_rows:
                self._row_finished(index)

    def _row_finished(self, index: int) -> None:
        self.frontier.forget_row(index)
        self.open.finish(index)

    def _ready(self, task: Task, plan: ColumnPlan) -> Progress | None:
        if plan.column.when_fn is not None:
            holds = condition_holds(plan, self.rows[task.unit])
            if isinstance(holds, Failure):
                fail = Fail(holds.kind, holds.message, 0, None, holds.kind)
                return self._fail(task, fail, Usage(), holds.traceback)
            if not holds:
                return self.frontier.skip(task)
        if not plan.group or not self._held_before.group(task, self._now):
            self._queue(task, plan)
        return None

    def _hold(self, item: HeldItem[Task], rows: Sequence[int], now: float) -> None:
        """The store is to know of ``item``, which is held back for ``rows``."""
        if not rows:
            return
        record = self._records.held(item, rows[0], now)
        if self.plans[item.task.column].group:
            self._ends.add(GroupHold(item.task, rows, record))
            self.unfinished = self.unfinished or len(self._ends) > 0
        else:
            self.journal.hold(record)

    def give_up(self, task: Task) -> None:
        """``task``, which is ready, is left for a later run."""
        self.left.give_up(task, self._now)

    def _take_salvage_effects(self) -> None:
        for effect in self.salvage.drain_effects():
            if isinstance(effect, LaneParked):
                self.left.park(effect.lane)
                self.unfinished = self.unfinished or bool(self.left.emptying)
            self.effects.append(effect)

    def _queue(self, task: Ready, plan: ColumnPlan, again: bool = False) -> None:
        if self.left.lanes and plan.lane in self.left.lanes:
            self.give_up(Task(*task))
            return
        self.dispatcher.push(task, task[1], again)

    def _cancel(self, task: Task) -> None:
        self.left.cancelled(task)
        if not self.dispatcher.discard(task):
            self.effects.append(Cancel(task))

    def _end_badly(self, task: Task, fail: Fail, usage: Usage, traceback: str | None) -> None:
        if self.plans[task.column].group:
            self._end_group(task, self.live_rows(task), fail, usage, fail.attempts, traceback)
        else:
            self._follow(self._fail(task, fail, usage, traceback))

    def _fail(self, task: Task, fail: Fail, usage: Usage, traceback: str | None) -> Progress:
        self.cells_closed += 1
        self._outcomes.failed(task.unit, self.plans[task.column], fail, usage, traceback)
        return self.frontier.fail(task, fail.kind.value)

    def _group_succeeded(
        self, task: Task, plan: ColumnPlan, results: Sequence[CellResult], usage: Usage, sent_at: float | None
    ) -> None:
        if self.frontier.task_state(task) != READY:  # it came too late
            self.salvage.dropped(task, self._now)
            return
        self.left.worked(plan.lane, self._now)
        attempts = 1 + self.salvage.succeeded(task, plan.lane, self._now, sent_at=sent_at)
        self._end_group(task, [result.row for result in results], results, usage, attempts, None)

    def _end_group(
        self,
        task: Task,
        rows: Sequence[int],
        outcome: Sequence[CellResult] | Fail,
        usage: Usage,
        attempts: int,
        traceback: str | None,
    ) -> None:
        self.cells_closed += len(rows)
        self._ends.add(GroupEnd(task, self.plans[task.column], rows, outcome, usage, attempts, traceback))
        self.unfinished = self.unfinished or len(self._ends) > 0
