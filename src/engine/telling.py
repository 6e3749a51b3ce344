"""Building the events of a run out of what the engine knows. Exists only while somebody listens.

Every method is one kind of news; the shells call it where it happens. What becomes of cells and rows is told when it is
committed, as it is counted then. Of group tasks this remembers which were begun and have not ended, so that each of
them ends once.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import TYPE_CHECKING, assert_never

import anyio
import anyio.lowlevel

from ..events import (
    BatchCommitted,
    CellEnded,
    ColumnStopped,
    GroupEnded,
    PaceChanged,
    RequestEnded,
    RequestStarted,
    ResourceBlocked,
    ResourceGivenUp,
    ResourceParked,
    ResourceReopened,
    RowFinished,
    RowOpened,
    RunEnded,
    RunStarted,
    RunStopping,
    StoreRetried,
    TaskHeld,
    TaskStarted,
)
from ..salvage.decisions import Block, LaneGivenUp, LaneParked, Reopened
from ..scheduler.tasks import DONE, Task
from ..storage.ports import CellStatus
from .effects import Abandoned, Cancel, ColumnHalted
from .report import RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..admission.values import Lease
    from ..events import Event
    from ..storage.ports import CellRecord
    from ..values import Outcome
    from .core import RunCore
    from .effects import CoreEffect
    from .jobs import Job
    from .listeners import Entered, Listeners
    from .meter import Pace
    from .report import RunReport
    from .restore import Restored
    from .values import ColumnPlan, OpenRow

__all__ = ["RunTeller"]

LEFT_PER_TURN = 512
"""Cells left open that are told in one turn of the loop."""


class RunTeller:
    """Tells what happens in one run.

    ``whole``: in one of several parts of a run, of which that one tells the start and the end; the row groups of the
    part are numbered from ``first_group`` on.
    """

    __slots__ = (
        "_begun", "_first_group", "_groups", "_index", "_listeners", "_paces", "_plans", "_started_at",
        "_stopping", "_unsaid", "_whole", "run",
    )  # fmt: skip

    def __init__(
        self,
        listeners: Listeners,
        run: str,
        plans: Sequence[ColumnPlan],
        *,
        whole: RunTeller | None = None,
        first_group: int = 0,
    ) -> None:
        self.run = run
        self._listeners = listeners
        self._plans = plans
        self._index = {plan.name: index for index, plan in enumerate(plans)}
        self._whole = whole
        self._first_group = first_group
        self._stopping = False
        self._begun: dict[Task, int] = {}  # group tasks that have not ended, and how many rows each was about
        self._unsaid: dict[Task, str] = {}  # those that have, and whose cells are not committed yet
        self._groups: dict[int, int] = {}  # of open rows, where there are group columns
        self._paces: dict[str, Pace] = {}
        self._started_at = anyio.current_time()

    @property
    def at(self) -> float:
        """Wall-clock seconds."""
        return self._listeners.wall_clock()

    def say(self, event: Event) -> None:
        """Tell ``event``."""
        self._listeners.say(event)

    # The run

    def started(self, epoch: int) -> None:
        """The run begins."""
        if self._whole is None:
            self.say(RunStarted(self.at, self.run, epoch, tuple(plan.name for plan in self._plans)))

    def stopping(self, status: RunStatus, grace_s: float) -> None:
        """Nothing more is started. A part that stalls, or runs out of time, does not stop the others."""
        if self._whole is not None:
            if status is RunStatus.STOPPED:
                self._whole.stopping(status, grace_s)
        elif not self._stopping:
            self._stopping = True
            self.say(RunStopping(self.at, self.run, status.value, grace_s))

    async def ended(self, core: RunCore, status: RunStatus | None, error: BaseException | None) -> None:
        """The run is over, or broken by ``error``. What is open is left for a later one, and told in turns."""
        taken = await self._listeners.room()
        for _ in self._left(core):
            await anyio.lowlevel.checkpoint()
            taken = taken and await self._listeners.room()
        if self._whole is None:
            tally = core.tally
            self._over(status, tally.accepted, tally.done, tally.failed, tally.skipped, error)

    def over(self, report: RunReport | None, error: BaseException | None) -> None:
        """A run is over of which the parts had tellers of their own."""
        if report is None:
            self._over(None, 0, 0, 0, 0, error)
        else:
            self._over(report.status, report.accepted, report.done, report.failed, report.skipped, error)

    def _over(
        self, status: RunStatus | None, rows: int, done: int, failed: int, skipped: int, error: BaseException | None
    ) -> None:
        self._stopping = True  # a sink may stop the run when it hears this, which must be the last word
        seconds, held = anyio.current_time() - self._started_at, rows - done - failed - skipped
        how = "failed" if status is None or error is not None else status.value
        what = "" if error is None else f"{type(error).__name__}: {error}"
        self.say(RunEnded(self.at, self.run, how, seconds, rows, done, failed, held, skipped, what))

    # Rows and cells

    def row_came(self, row: OpenRow, restored: Restored | None, group: int) -> None:
        """A row came in, in ``group`` unless an earlier run had finished it."""
        record = row.record
        if restored is not None and restored.whole:
            self.say(RowFinished(self.at, self.run, record.row, record.row_id, row.status(), True))
            return
        self._groups[record.row] = group
        self.say(RowOpened(self.at, self.run, record.row, record.row_id, self._first_group + group))

    def committed(self, cells: Iterable[CellRecord], finished: Iterable[OpenRow], known: int) -> None:
        """``cells`` are durable, and the rows that have ``finished`` since there were ``known`` of them."""
        at, run = self.at, self.run
        rows = tuple(islice(finished, known, None))  # a sink may drain the run, which lets go of them
        over: dict[Task, str] = {}
        for one in cells:
            usage = one.usage
            self.say(
                CellEnded(
                    at, run, one.column, one.row, one.status.value, one.reason, one.message, one.attempts,
                    usage.input_tokens, usage.output_tokens,
                )
            )  # fmt: skip
            if self._begun and one.status is not CellStatus.SKIPPED:
                self._find_group(one, over)
        for task, outcome in over.items():
            self._end_group(task, outcome, at)
        for row in rows:
            self._groups.pop(row.record.row, None)
            self.say(RowFinished(at, run, row.record.row, row.record.row_id, row.status(), False))

    def _left(self, core: RunCore) -> Iterator[None]:
        at, run, said = self.at, self.run, 0
        for row in [row for row, record in core.rows.items() if not record.finished]:
            for column, _ in core.frontier.unfinished(row):
                self.say(CellEnded(at, run, self._plans[column].name, row, "held", "", "", 0, 0, 0))
                said += 1
                if said % LEFT_PER_TURN == 0:
                    yield
        for task in tuple(self._begun):
            self._end_group(task, "skipped" if core.frontier.task_state(task) >= DONE else "held", at)

    # Tasks

    def task_started(self, job: Job) -> None:
        """A body is about to be called."""
        plan, (row, group) = job.plan, self._unit(job.task)
        if plan.group:
            self._begun[job.task] = len(job.rows)
        resource = None if plan.resource is None else plan.lane
        self.say(TaskStarted(self.at, self.run, plan.name, row, group, len(job.rows), resource))
        if job.lease is not None:
            self.request_started(job.task, plan.lane, job.lease)

    def task_ended(self, task: Task, core: RunCore, done: bool, now: float) -> None:
        """An attempt of ``task`` is over: tell if it is held back."""
        if task in self._begun and core.frontier.task_state(task) >= DONE:
            self._unsaid[task] = "done" if done else "failed"
        item = core.salvage.item(task)
        if item is None:
            return
        row, group = self._unit(task)
        retry = None if item.not_before == inf else max(0.0, item.not_before - now)
        message = str(item.history.get("last_message", ""))
        name = self._plans[task.column].name
        reason = item.reason.value
        self.say(TaskHeld(self.at, self.run, name, row, group, reason, message, item.attempts, retry))

    @property
    def surrounds(self) -> bool:
        """Whether a sink has something to do around the calls of bodies."""
        return self._listeners.surrounds

    def enter_body(self, job: Job) -> Entered:
        """The body is called, in this task, until :meth:`leave_body` with what this returned."""
        row, group = self._unit(job.task)
        return self._listeners.enter_body(self.run, job.plan.name, row, group)

    def leave_body(self, entered: Entered) -> None:
        """It has returned, raised or was cancelled."""
        self._listeners.leave_body(self.run, entered)

    # Requests

    def request_started(self, task: Task | None, resource: str, lease: Lease) -> None:
        """An attempt has its lease."""
        if task is not None:
            row, group = self._unit(task)
            name = self._plans[task.column].name
            self.say(RequestStarted(self.at, self.run, name, row, group, resource, lease.id, lease.waited_s))

    def request_ended(self, task: Task | None, resource: str, lease: Lease, outcome: Outcome, seconds: float) -> None:
        """An attempt gives its lease back."""
        if task is None:
            return
        row, group = self._unit(task)
        name, usage = self._plans[task.column].name, lease.usage
        read, written = (None, None) if usage is None else (usage.input_tokens, usage.output_tokens)
        self.say(
            RequestEnded(
                self.at, self.run, name, row, group, resource, lease.id, outcome.value, seconds, read, written
            )
        )  # fmt: skip

    # Resources and the store

    def performed(self, effect: CoreEffect) -> None:
        """What the core decided about tasks, lanes and columns."""
        at, run = self.at, self.run
        match effect:
            case Block(lane=lane, until=until):
                seconds = None if until == inf else max(0.0, until - anyio.current_time())
                self.say(ResourceBlocked(at, run, lane, seconds))
            case Reopened(lane=lane):
                self.say(ResourceReopened(at, run, lane))
            case LaneParked(lane=lane, kind=kind, message=message):
                self.say(ResourceParked(at, run, lane, kind.value, message))
            case Abandoned(lane=lane, reason=reason):
                self.say(ResourceGivenUp(at, run, lane, reason))
            case ColumnHalted(column=column, reason=reason):
                self.say(ColumnStopped(at, run, column, reason))
            case Cancel() | LaneGivenUp():
                pass
            case _:
                assert_never(effect)

    def pace(self, resource: str, pace: Pace, limit: float, in_flight: int) -> None:
        """What sets the speed of a resource now."""
        if self._paces.get(resource) is not pace:
            self._paces[resource] = pace
            bound = None if limit == inf else limit
            self.say(PaceChanged(self.at, self.run, resource, pace.value, bound, in_flight))

    def batch(self, records: int, seconds: float) -> None:
        """A commit was acknowledged."""
        self.say(BatchCommitted(self.at, self.run, records, seconds))

    def store_retried(self, error: Exception, pause_s: float) -> None:
        """The store is away."""
        self.say(StoreRetried(self.at, self.run, f"{type(error).__name__}: {error}", pause_s))

    # Within

    def _unit(self, task: Task) -> tuple[int | None, int | None]:
        return (None, self._first_group + task.unit) if self._plans[task.column].group else (task.unit, None)

    def _find_group(self, cell: CellRecord, over: dict[Task, str]) -> None:
        """The group task that ``cell`` was closed by, if it was."""
        group = self._groups.get(cell.row)
        if group is not None and (task := Task(self._index[cell.column], group)) in self._begun:
            over.setdefault(task, self._unsaid.get(task, cell.status.value))

    def _end_group(self, task: Task, outcome: str, at: float) -> None:
        rows = self._begun.pop(task)
        self._unsaid.pop(task, None)
        assert outcome in ("done", "failed", "skipped", "held")
        number = self._first_group + task.unit
        self.say(GroupEnded(at, self.run, self._plans[task.column].name, number, outcome, rows))
