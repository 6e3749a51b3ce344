"""One run: the shell that performs what its core decides.

The hot path has no loop of its own. A worker that ends a job reports it and takes one *step*: events go to the core,
effects are performed, ready tasks are placed, all synchronously; then the worker finds its next job already in its
hands. The run's loop sleeps until time or another task has news for it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from ..admission.values import DenyReason
from ..errors import HeadgateError, RowFailed
from ..salvage.classify import Classifier, Failure
from ..salvage.decisions import Block, LaneGivenUp, LaneParked, Reopened
from ..salvage.kinds import FailureKind
from ..salvage.stall import StallClock
from ..values import Usage
from ..wakeup import Wakeup
from .committer import Committer
from .dispatch import Dispatch
from .effects import Abandoned, Cancel, ColumnHalted, CoreEffect
from .first_request import FirstRequests
from .flight import Flight
from .halt import Halt
from .log import logger
from .meter import Meter
from .pace import pace_of
from .report import RunReport, RunStatus
from .statistics import RunStatistics, look
from .summary import summarize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ..admission.controller import AdmissionController
    from ..admission.values import Denied, Lease
    from ..scheduler.frontier import Task
    from ..storage.ports import Batch, RunHandle
    from .core import RunCore
    from .intake import Intake
    from .jobs import Job, ThreadRunner
    from .options import RunOptions
    from .values import CellResult, FinishedRow

__all__ = ["Run"]

PACE_EVERY_S = 0.005
"""What sets the pace is sampled at steps, but not more often than this: far below any latency that it explains."""


class Run:
    """A run in progress. Made by :meth:`headgate.Engine.start`; see :meth:`rows`, :meth:`wait` and :meth:`stop`."""

    def __init__(
        self,
        name: str,
        core: RunCore,
        intake: Intake,
        *,
        controller: AdmissionController,
        classifier: Classifier,
        handle: RunHandle,
        options: RunOptions,
        threads: ThreadRunner,
        wall_clock: Callable[[], float],
        read: Callable[[], Iterator[dict[str, object]]],
        resume_hint: str,
    ) -> None:
        self.name = name
        self._core = core
        self._intake = intake
        self._controller = controller
        self._handle = handle
        self._options = options
        self._read = read
        self._resume_hint = resume_hint
        now = anyio.current_time()
        self._meter = Meter(now)
        self._stall = StallClock(now, stall_timeout_s=options.stall_timeout, deadline_at=now + options.deadline)
        self._requests = FirstRequests(core, name)
        self._dispatch = Dispatch(
            core.dispatcher,
            controller,
            start=self._start,
            request_of=self._requests.of,
            refused=self._refused,
            denied=self._denied,
            model_workers=options.max_workers,
            local_workers=options.local_workers,
        )
        self._flight = Flight(
            name,
            core,
            controller,
            classifier,
            self._meter,
            threads,
            wall_clock=wall_clock,
            ended=self._job_ended,
        )
        self._committer = Committer(handle, core.journal, self._committed)
        self._armed = inf
        self._paces_read_at = -inf
        self._room = Wakeup()
        self._wants_room = False
        self._more_rows = False  # there is room for more than the last step took in
        self._rows_ready = Wakeup()
        self._streaming = False
        self._dropped_rows = False
        self._stop = Halt()
        self._log = logger(name)
        self._notices: list[str] = []
        self._error: BaseException | None = None
        self._report: RunReport | None = None
        self._done = anyio.Event()

    # For users

    async def rows(self) -> AsyncIterator[FinishedRow]:
        """Finished rows, each as soon as it is committed, in the order in which they finish.

        Call it before anything else is awaited. A slow consumer slows the run down instead of filling memory. Ends
        when the run does; raises what :meth:`wait` raises. Rows that an earlier run finished come too.
        """
        if self._dropped_rows:
            raise HeadgateError("rows() came too late: rows have finished before anybody asked for them")
        self._streaming = True
        finished = self._core.finished
        while True:
            while finished:
                yield finished.popleft()
                self._offer_room()
            if self._done.is_set():
                break
            await self._rows_ready.wait()
        if self._error is not None:
            raise self._error

    async def wait(self) -> RunReport:
        """The report, when the run has ended. Raises what broke the run, with its cause; never for a failed row,
        unless ``on_failure="raise"`` was given: then RowFailed.
        """
        self._streaming = False
        self._core.finished.clear()
        self._offer_room()
        await self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._report is not None
        return self._report

    def stop(self, *, grace: float | None = None) -> None:
        """Start nothing more; what is in flight gets ``grace`` seconds (default: the run's option), then is
        cancelled. Everything finished is committed, everything else is held for a later run.
        """
        self._halt(RunStatus.STOPPED, self._options.grace if grace is None else grace)

    def statistics(self) -> RunStatistics:
        """One look at the run as it is now."""
        now = anyio.current_time()
        return look(self.name, self._core, self._meter, self._controller, self._intake.resources, now)

    async def ended(self) -> None:
        """Return when the run has ended, however it did."""
        await self._done.wait()

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self._done.is_set()

    @property
    def stopping(self) -> bool:
        """Whether nothing more is started: it was stopped, or a limit on its time passed."""
        return self._stop.status is not None

    @property
    def core(self) -> RunCore:
        """The run's decisions, to look at."""
        return self._core

    @property
    def meter(self) -> Meter:
        """The run's meters, to look at."""
        return self._meter

    @property
    def in_flight(self) -> int:
        """How many tasks run now."""
        return len(self._flight)

    # The run's own tasks

    async def main(self) -> None:
        """Run to the end. Started once by the engine, in its task group; keeps what broke the run for ``wait``."""
        try:
            async with anyio.create_task_group() as tasks:
                most = self._options.max_workers + self._options.local_workers
                self._flight.open(tasks, most)
                tasks.start_soon(self._committer.run)
                if not self._intake.immediate:
                    tasks.start_soon(self._take_rows)
                await self._loop()
                tasks.cancel_scope.cancel()
            if self._error is None:
                await self._conclude()
            else:
                await self._handle.finish(self._status().value)
        except BaseException as error:
            self._error = self._error or _single(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._dispatch.close(anyio.current_time())
            self._flight.give_back()
            with anyio.CancelScope(shield=True):
                await self._handle.aclose()
            self._done.set()
            self._rows_ready.set()

    async def _loop(self) -> None:
        while True:
            self._step()
            if self._over():
                return
            if self._dispatch.unfinished or self._more_rows:
                await anyio.lowlevel.checkpoint()
                continue
            self._armed = self._next_tick()
            await self._dispatch.bidder.wakeup.wait(self._armed)
            self._armed = -inf

    def _take_rows_now(self) -> None:
        """Rows that need no waiting come in within the step that made room for them: no task has to be woken."""
        intake = self._intake
        self._more_rows = False
        if intake.immediate and not intake.ended and (room := intake.room()) > 0:
            intake.pull_now(room)
            self._more_rows = not intake.ended and intake.room() > 0

    async def _take_rows(self) -> None:
        while not self._intake.ended and self._stop.status is None:
            room = self._intake.room()
            if room <= 0:
                self._wants_room = True
                await self._room.wait()
                self._wants_room = False
                continue
            await self._intake.pull(room)
            self._hand_out()  # rows that an earlier run finished need no commit
            self._step()
            self._wake_if_due()
            await anyio.lowlevel.checkpoint()
        self._dispatch.bidder.wakeup.set()

    # Steps

    def _step(self, now: float | None = None) -> None:
        """Decide and perform, until nothing more follows from what is known now."""
        if now is None:
            now = anyio.current_time()
        bidder = self._dispatch.bidder
        bidder.attending = True
        core = self._core
        core.tick(now)
        self._flight.time_out(now)
        self._look_at_bounds(now)
        self._perform(core.drain_effects())
        if self._stop.status is None:
            self._take_rows_now()
            self._dispatch.step(now)
            self._perform(core.drain_effects())
        bidder.attending = False
        if core.journal.waiting:
            self._committer.wakeup.set()
        if self._wants_room and self._intake.room() > 0:
            self._room.set()
        self._read_paces(now)

    def _wake_if_due(self) -> None:
        """The loop sleeps until a time that may have come nearer, or waits for an end that has come."""
        if self._dispatch.unfinished or self._more_rows or self._next_tick() < self._armed or self._over():
            self._dispatch.bidder.wakeup.set()

    def _next_tick(self) -> float:
        tick = min(self._core.salvage.next_tick(0.0), self._flight.next_tick(), self._dispatch.next_tick())
        return min(tick, self._stall.next_tick(-inf) if self._stop.status is None else self._stop.next_tick())

    def _over(self) -> bool:
        core = self._core
        if len(self._flight) or self._dispatch.bids or core.journal.backlog:
            return False
        if self._stop.status is not None:
            return True
        if core.pending or self._intake.pulling:
            return False
        return self._intake.ended or (self._intake.room() <= 0 and not core.finished)

    def _look_at_bounds(self, now: float) -> None:
        """Deadline, stall and grace time."""
        if self._stop.status is not None:
            if self._stop.cuts(now):
                self._flight.cancel_all()
            return
        if self._core.finished or (self._intake.pulling and not self._core.pending and not len(self._flight)):
            self._stall.progress(now)  # it waits for its consumer, or for its source
        verdict = self._stall.verdict(now)
        if verdict == "stalled":
            self._halt(RunStatus.STALLED, 0.0)
        elif verdict == "deadline":
            self._halt(RunStatus.HELD, self._options.grace)

    def _halt(self, status: RunStatus, grace: float) -> None:
        now = anyio.current_time()
        if self._stop.begin(status, now + grace):
            for task in self._dispatch.close(now):
                self._core.cancelled(task, now)
        self._room.set()
        self._dispatch.bidder.wakeup.set()

    # Jobs

    def _refused(self, task: Task) -> bool:
        """Whether ``task`` may not start: its column was stopped, or cannot say how many tokens it needs."""
        core, now = self._core, anyio.current_time()
        if core.refused(task, now):
            return True
        try:
            self._requests.estimate(task)
        except Exception as error:
            core.failed(task, self._flight.classify(error), Usage(), now, lane=core.plans[task.column].lane)
            return True
        return False

    def _start(self, task: Task, lease: Lease | None, now: float) -> None:
        self._requests.forget(task)
        self._flight.start(task, lease, now)

    def _job_ended(self, job: Job, ended: list[CellResult] | Failure | None, now: float) -> None:
        closed = self._core.cells_closed
        self._dispatch.ended(local=job.plan.resource is None)
        if ended is None or job.unwanted:
            self._core.cancelled(job.task, now)
        elif isinstance(ended, Failure):
            self._failed(job, ended, now)
        else:
            self._core.succeeded(job.task, ended, job.usage, now, sent_at=job.started_at)
        if self._core.cells_closed != closed:
            self._stall.progress(now)
        self._step(now)
        self._wake_if_due()

    def _failed(self, job: Job, failure: Failure, now: float) -> None:
        if failure.kind is FailureKind.ADMISSION_DENIED and self._controller.gate.closed:
            self._core.cancelled(job.task, now)  # the engine closes: nobody's fault, and no row's end
            self._halt(RunStatus.STOPPED, 0.0)
            return
        resource = job.plan.resource
        cooldown = -inf if resource is None else self._controller.gate.blocked_until(resource)
        lane = job.plan.lane
        self._core.failed(job.task, failure, job.usage, now, lane=lane, cooldown_until=cooldown, sent_at=job.started_at)
        if self._core.ledger.total and self._options.on_failure == "raise" and self._error is None:
            entry = next(iter(self._core.ledger))
            self._error = RowFailed(f"row {entry.row}, {entry.column}: {entry.kind.value}: {entry.message}")
            self._halt(RunStatus.STOPPED, 0.0)

    def _denied(self, task: Task, denied: Denied) -> None:
        if denied.reason is DenyReason.SHUTDOWN:
            self._core.cancelled(task, anyio.current_time())
            self._halt(RunStatus.STOPPED, 0.0)
            return
        message = f"{denied.resource}: {_DENIALS[denied.reason]}"
        failure = Failure(FailureKind.ADMISSION_DENIED, message)
        lane = self._core.plans[task.column].lane
        self._core.failed(task, failure, Usage(), anyio.current_time(), lane=lane)

    # Effects

    def _perform(self, effects: list[CoreEffect]) -> None:
        for effect in effects:
            match effect:
                case Cancel(task=task):
                    self._cancel_task(task)
                case Block(lane=lane, until=until):
                    self._block(lane, until)
                case Reopened(lane=lane):
                    self._block(lane, -inf)
                case LaneParked(lane=lane, kind=kind, message=message):
                    self._notices.append(f"{lane} is parked ({kind.value}): {message}")
                    self._log.error("resource parked", resource=lane, kind=kind.value, message=message)
                    self._block(lane, inf)
                case Abandoned(lane=lane):
                    bound = self._dispatch.withdraw_lane(lane)
                    if bound is not None:
                        self._requests.forget(bound)
                        self._core.give_up(bound)
                    self._notices.append(f"{lane} did not answer for {self._options.patience:g} s: its tasks are held")
                    self._log.error("resource given up", resource=lane, patience_s=self._options.patience)
                case LaneGivenUp():
                    pass  # the core looks at the lane itself
                case ColumnHalted(column=column, reason=reason):
                    self._notices.append(f"column {column} was stopped: {reason}")
                    self._log.error("column stopped", column=column, reason=reason)

    def _cancel_task(self, task: Task) -> None:
        if self._flight.cancel(task):
            return
        self._dispatch.withdraw(task)
        self._requests.forget(task)
        self._core.cancelled(task, anyio.current_time())

    def _block(self, lane: str, until: float) -> None:
        """Close ``lane`` until ``until``; a time that has passed opens it."""
        scope = self._intake.scope_of(lane)
        if scope is None:
            self._dispatch.block_local(lane, until)
        elif until == -inf:
            self._controller.unblock(scope)
        else:
            self._controller.block(scope, until)

    # Rows and commits

    def _committed(self, batch: Batch) -> None:
        self._core.committed(batch)
        self._hand_out()
        self._offer_room()
        self._wake_if_due()

    def _hand_out(self) -> None:
        if not self._core.finished:
            return
        if self._streaming:
            self._rows_ready.set()
        else:
            self._dropped_rows = True
            self._core.finished.clear()

    def _offer_room(self) -> None:
        if self._intake.ended or self._intake.room() <= 0:
            return
        if self._wants_room:
            self._room.set()
        elif self._intake.immediate:
            self._dispatch.bidder.wakeup.set()

    def _read_paces(self, now: float, *, last: bool = False) -> None:
        if now - self._paces_read_at < PACE_EVERY_S and not last:
            return
        self._paces_read_at = now
        for lane, resource in self._intake.resources.items():
            pace = pace_of(lane, resource, self._core, self._dispatch, self._controller, self._meter)
            self._meter.of(lane).turn(pace, self._controller.gate.capacity(resource), now)

    # The end

    async def _conclude(self) -> None:
        self._core.leave_open()
        now, status = anyio.current_time(), self._status()
        self._read_paces(now, last=True)
        await self._handle.finish(status.value)
        hint = self._resume_hint if status in _RESUMABLE else ""
        self._report = summarize(
            self.name,
            status,
            self._core,
            self._meter,
            seconds=now - self._meter.started_at,
            notices=tuple(self._notices),
            resume_hint=hint,
            read=self._read,
        )
        self._report.check()

    def _status(self) -> RunStatus:
        tally = self._core.tally
        if self._stop.status is not None:
            return self._stop.status
        if tally.held:
            return RunStatus.HELD
        return RunStatus.COMPLETED_WITH_FAILURES if tally.failed else RunStatus.COMPLETED


_DENIALS = {
    DenyReason.TOO_LARGE: "the request can never pass its token limit; make it smaller or raise the limit",
    DenyReason.UNKNOWN_RESOURCE: "no such resource is registered",
}
_RESUMABLE = frozenset({RunStatus.HELD, RunStatus.STALLED, RunStatus.STOPPED, RunStatus.BUDGET_EXHAUSTED})


def _single(error: BaseException) -> BaseException:
    """The one error inside the groups that task groups wrap around it."""
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup):
        members: tuple[BaseException, ...] = inner.exceptions
        if len(members) != 1:
            break
        inner = members[0]
    return inner
