"""The decisions of one run: what each event means for rows, tasks, records and lanes.

Composes the scheduler's frontier and dispatcher, the salvage machine and the journal, and does no I/O: the shell in
:mod:`headgate.engine.loop` tells it what happened, takes tasks to start from the dispatcher, and performs the effects
that it drains after each step. Times are seconds on the run's monotonic clock.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..salvage.classify import Failure
from ..salvage.column_guard import ColumnGuard
from ..salvage.decisions import Fail, HeldItem, LaneParked
from ..salvage.kinds import FailureKind
from ..salvage.ledger import FailureLedger
from ..scheduler.dispatcher import Dispatcher
from ..scheduler.frontier import Frontier, Progress, Task
from ..scheduler.tasks import FAILED, READY, SKIPPED
from ..values import Failed, Skipped, Usage
from .conditions import arguments_of, condition_holds
from .effects import Abandoned, Cancel, ColumnHalted, CoreEffect
from .grouping import Grouping
from .held_before import HeldBefore
from .left_lanes import LeftLanes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..salvage.salvage import Salvage
    from ..scheduler.graph import Graph
    from .open_rows import OpenRows
    from .records import Records
    from .restore import Restored
    from .rows import RowSeed
    from .values import CellResult, ColumnPlan

__all__ = ["RunCore"]


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
    ) -> None:
        self.plans = plans
        self.salvage = salvage
        self.frontier = Frontier(graph, finish_siblings=finish_siblings)
        self.dispatcher = Dispatcher()
        self.open = open_rows
        self.journal = self.open.journal
        self.ledger = FailureLedger()
        self.guard = ColumnGuard()
        self.tally = self.open.tally
        self.rows = self.open.rows
        self.finished = self.open.finished
        self.stopped: dict[int, str] = {}
        self.cells_closed = 0  # by an attempt of their own; what follows from them is not counted
        self._records = records
        self._groups = Grouping(group_size)
        self.effects: list[CoreEffect] = []
        self._left = LeftLanes(patience_s)
        self._again: set[Task] = set()
        self._fresh: set[str] = set()
        self._given_up: set[Task] = set()
        self._held_before = HeldBefore(plans, self.frontier, salvage)
        self._spent = 0  # numbers the attempts that used tokens and failed
        self._now = -inf  # the time of the event that is being handled
        for plan in self.plans:
            weight, rank = plan.column.spec.weight, graph.path_length[plan.index]
            self.dispatcher.add_flow(plan.index, plan.lane, weight=weight, rank=rank)

    # Rows come in

    def add_row(self, seed: RowSeed, restored: Restored | None, now: float) -> None:
        """Accept a row, with what an earlier run committed about it."""
        self._now = now
        self.tally.accepted += 1
        if restored is None:
            self._records.row(seed)
        elif restored.whole:
            self.open.pass_through(seed, restored)
            return
        self.open.open(seed, restored)
        states: Mapping[int, int] = {} if restored is None else restored.states
        progress = self.frontier.add_row(seed.position, self._groups.place(), states)
        if restored is not None:
            self._held_before.take_from(progress.ready, restored.held, self._groups.number, now)
        self._follow(progress, known=states)
        if not self._groups.owed:
            self.seal()

    def seal(self) -> None:
        """The current group gets no more rows."""
        if self._groups.number >= 0:
            self._groups.close()
            self._follow(self.frontier.seal_group(self._groups.number))

    @property
    def owed(self) -> int:
        """How many rows the current group still lacks."""
        return self._groups.owed

    # Tasks end

    def succeeded(
        self, task: Task, results: Sequence[CellResult], usage: Usage, now: float, *, sent_at: float | None
    ) -> None:
        """``task`` yielded ``results``: one for its row, or one for each live row of its group."""
        self._now = now
        if self._again:
            self._again.discard(task)
        plan = self.plans[task.column]
        if plan.group:
            self._group_succeeded(task, plan, results, usage, sent_at)
            return
        progress = self.frontier.finish(task)
        if not progress.closed:  # it came too late
            self.salvage.dropped(task, now)
            return
        self.cells_closed += 1
        self._left.worked(plan.lane, now)
        attempts = 1 + self.salvage.succeeded(task, plan.lane, now, sent_at=sent_at)
        self._done_cell(plan, results[0], usage, attempts)
        self._follow(progress)

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
            self._follow(self._fail(task, decision, usage, failure.traceback))
            return
        self.frontier.hold(task)
        item = self.salvage.item(task)
        assert item is not None
        rows = self.live_rows(task)
        if rows and usage != Usage():
            self._spent += 1
            self._records.spent(rows[0], task.column, self._spent, failure.kind.value, usage)
        self._records.held(item, rows, _wait_s(item, now))

    def cancelled(self, task: Task, now: float) -> None:
        """``task`` was stopped because nobody wants it any more."""
        self._again.discard(task)
        self.salvage.dropped(task, now)

    def sent(self, task: Task, now: float) -> None:
        """The first request of ``task`` was let out."""
        self.salvage.sent(self.plans[task.column].lane, now, fresh=task not in self._again, task=task)

    def refused(self, task: Task, now: float) -> bool:
        """Whether ``task`` may not start because its column was stopped; it has failed then."""
        why = self.stopped.get(task.column)
        if why is None:
            return False
        self.cancelled(task, now)
        self._follow(
            self._fail(task, Fail(FailureKind.COLUMN_STOPPED, why, 0, None, FailureKind.COLUMN_STOPPED), Usage(), None)
        )
        return True

    # Time

    def tick(self, now: float) -> None:
        """Bring back held tasks whose time has come, give up those held for too long. Only needed while any is known
        to salvage."""
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
        for item in salvage.expired(now):
            self._given_up.add(item.task)
            self._records.held(item, self.live_rows(item.task), _wait_s(item, now))
            if self._left.leave(item.lane, now):
                self._leave_lane(item.lane)
                self.effects.append(Abandoned(item.lane, f"{item.reason.value} {item.history['last_message']}".strip()))
        for task in salvage.due(now, fresh_work=fresh):
            if self.frontier.resume(task):
                self._again.add(task)
                self._queue(task, again=True)
        self._take_salvage_effects()

    def drain_effects(self) -> list[CoreEffect]:
        """What the shell has to perform since the last call."""
        effects, self.effects = self.effects, []
        return effects

    def leave_open(self) -> None:
        """The run ends here: whatever is open is held for a later run."""
        for index in self.rows:
            self.open.leave(index, [column for column, _ in self.frontier.unfinished(index)])

    # Questions

    def inputs(self, task: Task) -> tuple[Sequence[int], dict[str, object]]:
        """The rows that ``task`` is about, in order, and the keyword arguments for its body."""
        column, unit = task
        plan = self.plans[column]
        if not plan.group:
            return (unit,), arguments_of(plan.arguments, plan.optional, self.rows[unit])
        rows = self.frontier.live_rows(task)
        each = [arguments_of(plan.arguments, plan.optional, self.rows[row]) for row in rows]
        return rows, {name: [one[name] for one in each] for name, _ in plan.arguments if name in each[0]}

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
        assert self.frontier.counts().held_tasks == self.salvage.held + len(self._given_up)
        self.open.check()

    # What follows

    def _follow(self, progress: Progress, *, known: Mapping[int, int] | None = None) -> None:
        """Carry out what the frontier concluded, and what that leads to. ``known`` cells are on record already."""
        todo, grown = [progress], False
        for step in todo:  # it grows meanwhile
            for row, column, state, reason in step.closed:
                if state == SKIPPED and not (known and column in known):
                    self._records.skipped(row, column, reason)
                    self.rows[row].problems[self.plans[column].name] = Skipped(reason)
            for task in step.cancel:
                self._cancel(task)
            for task in step.ready:
                if grown and self.frontier.task_state(task) != READY:
                    continue  # an earlier failure in the same step closed it
                plan = self.plans[task.column]
                if plan.column.when_fn is None and not plan.group:
                    self._queue(task)
                elif (further := self._ready(task, plan)) is not None:
                    todo.append(further)
                    grown = True
            for index in step.finished_rows:
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
            self._queue(task)
        return None

    def give_up(self, task: Task) -> None:
        """``task``, which is ready, is left for a later run."""
        if self.frontier.hold(task):
            self._given_up.add(task)
            self.salvage.dropped(task, self._now)

    def _leave_lane(self, lane: str) -> None:
        """What waits on ``lane``, and what would come to wait there, is left for a later run."""
        for task in self.dispatcher.clear(lane):
            self.give_up(task)

    def _take_salvage_effects(self) -> None:
        for effect in self.salvage.drain_effects():
            if isinstance(effect, LaneParked):
                self._left.park(effect.lane)
                self._leave_lane(effect.lane)
            self.effects.append(effect)

    def _queue(self, task: Task, *, again: bool = False) -> None:
        plan = self.plans[task.column]
        if self._left.lanes and plan.lane in self._left.lanes:
            self.give_up(task)
            return
        order = task.unit * self._groups.size if plan.group else task.unit
        self.dispatcher.push(task, order, again=again)

    def _cancel(self, task: Task) -> None:
        self._given_up.discard(task)
        if not self.dispatcher.discard(task):
            self.effects.append(Cancel(task))

    def _fail(self, task: Task, fail: Fail, usage: Usage, traceback: str | None) -> Progress:
        plan = self.plans[task.column]
        for row in self.live_rows(task):
            self._fail_cell(row, plan, fail, usage, traceback)
            usage = Usage()  # one request, counted once
        return self.frontier.fail(task, fail.kind.value)

    def _done_cell(self, plan: ColumnPlan, result: CellResult, usage: Usage, attempts: int) -> None:
        self.open.keep(result.row, plan.index, result.value, len(result.payload))
        self._records.done(plan.index, result, usage, attempts)
        self.guard.succeeded(plan.name)

    def _fail_cell(self, row: int, plan: ColumnPlan, fail: Fail, usage: Usage, traceback: str | None) -> None:
        open_row = self.rows[row]
        open_row.failed = True
        open_row.problems[plan.name] = Failed(fail.kind.value, fail.message, fail.attempts, fail.status)
        self.cells_closed += 1
        self._records.failed(row, plan.index, fail, usage)
        self.ledger.record(
            open_row.seed.id,
            plan.name,
            fail.kind,
            attempts=fail.attempts,
            status=fail.status,
            message=fail.message,
            traceback=traceback,
        )
        verdict = self.guard.failed(plan.name, fail.kind)
        if verdict is not None:
            why = f"{verdict.failures} of {verdict.rows} rows failed for good, the last one with: {fail.message}"
            self.stopped[plan.index] = why
            self.effects.append(ColumnHalted(plan.name, why))

    def _group_succeeded(
        self, task: Task, plan: ColumnPlan, results: Sequence[CellResult], usage: Usage, sent_at: float | None
    ) -> None:
        if self.frontier.task_state(task) != READY:  # it came too late
            self.salvage.dropped(task, self._now)
            return
        self.cells_closed += len(results)
        self._left.worked(plan.lane, self._now)
        attempts = 1 + self.salvage.succeeded(task, plan.lane, self._now, sent_at=sent_at)
        states: dict[int, int] = {}
        reasons: dict[int, str] = {}
        live = set(self.frontier.live_rows(task))
        for result in results:
            if result.row not in live:
                continue  # the row failed in another column while the group was at work
            if result.failure is None:
                self._done_cell(plan, result, usage, attempts)
            else:
                failure = result.failure
                states[result.row] = FAILED
                reasons[result.row] = failure.kind.value
                fail = Fail(failure.kind, failure.message, attempts, failure.status, failure.kind)
                self._fail_cell(result.row, plan, fail, usage, failure.traceback)
            usage = Usage()  # one request, counted once
        self._follow(self.frontier.finish_group(task, states, reasons))


def _wait_s(item: HeldItem[Task], now: float) -> float:
    """How long ``item`` waits from now; without a time of its own it may be tried again at once."""
    return 0.0 if item.not_before == inf else max(0.0, item.not_before - now)
