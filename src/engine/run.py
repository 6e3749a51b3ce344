"""One run: the shell that performs what its core decides.

The hot path has no loop of its own. A worker that ends a job reports it and takes one *step*: events go to the core,
effects are performed, ready tasks are placed, all synchronously; then the worker finds its next job already in its
hands. The run's loop sleeps until time or another task has news for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from math import inf
from typing import cast

import anyio
import anyio.lowlevel

from ..admission.controller import AdmissionController
from ..admission.timers import Timers
from ..admission.values import Denied, Lease, Request
from ..errors import HeadgateError, RowFailed
from ..salvage.classify import Classifier, Failure
from ..salvage.decisions import Block, LaneParked, Reopened
from ..salvage.kinds import TABLE, FailureKind
from ..salvage.stall import StallClock
from ..scheduler.frontier import Task
from ..scheduler.window import Window
from ..storage.ports import Batch, RunHandle
from ..values import Outcome, Usage
from ..wakeup import Wakeup
from .committer import Committer
from .core import Cancel, CoreEffect, RunCore
from .dispatch import Dispatch
from .intake import Intake
from .jobs import Job, ThreadRunner, body_results, call_body
from .meter import Meter
from .options import RunOptions
from .pace import pace_of
from .report import RunReport, RunStatus
from .requests import requester
from .statistics import RunStatistics, look
from .summary import summarize
from .values import CellResult, FinishedRow
from .workers import Worker, Workers

__all__ = ["Run"]


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
        read: Callable[[], object],
        resume_hint: str,
    ) -> None:
        self.name = name
        self._core = core
        self._intake = intake
        self._controller = controller
        self._classifier = classifier
        self._handle = handle
        self._options = options
        self._threads = threads
        self._wall_clock = wall_clock
        self._read = read
        self._resume_hint = resume_hint
        now = anyio.current_time()
        self._started_at = now
        self._meter = Meter(now)
        self._stall = StallClock(
            now, stall_timeout_s=options.stall_timeout, deadline_at=now + options.deadline
        )
        self._window = Window(
            max_rows=options.max_open_rows, max_bytes=options.max_open_bytes, group_rows=intake.group_rows
        )
        self._dispatch = Dispatch(
            core.dispatcher,
            controller,
            start=self._start,
            request_of=self._request_of,
            refused=self._refused,
            denied=self._denied,
            model_workers=options.max_workers,
            local_workers=options.local_workers,
        )
        self._committer = Committer(handle, core.journal, self._committed)
        self._workers: Workers[Job] | None = None
        self._jobs: dict[Task, Job] = {}
        self._deadlines: Timers[Task] = Timers()
        self._estimates: dict[Task, int] = {}
        self._armed = inf
        self._room = Wakeup()
        self._wants_room = False
        self._rows_ready = Wakeup()
        self._streaming = False
        self._dropped_rows = False
        self._stopping: RunStatus | None = None
        self._stop_by = inf
        self._cut = False
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
        return len(self._jobs)

    # The run's own tasks

    async def main(self) -> None:
        """Run to the end. Started once by the engine, in its task group; keeps what broke the run for ``wait``."""
        try:
            async with anyio.create_task_group() as tasks:
                most = self._options.max_workers + self._options.local_workers
                self._workers = Workers(tasks, self._run_job, self._job_cancelled, most=most)
                tasks.start_soon(self._committer.run)
                tasks.start_soon(self._take_rows)
                await self._loop()
                tasks.cancel_scope.cancel()
            if self._error is None:
                await self._conclude()
        except BaseException as error:
            self._error = self._error or _single(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._give_back()
            self._done.set()
            self._rows_ready.set()

    async def _loop(self) -> None:
        while True:
            self._step()
            if self._over():
                return
            if self._dispatch.unfinished:
                await anyio.lowlevel.checkpoint()
                continue
            self._armed = self._next_tick()
            await self._dispatch.bidder.wakeup.wait(self._armed)
            self._armed = -inf

    async def _take_rows(self) -> None:
        while not self._intake.ended and self._stopping is None:
            room = self._room_for()
            if room <= 0:
                self._wants_room = True
                await self._room.wait()
                self._wants_room = False
                continue
            await self._intake.pull(room)
            self._step()
            self._wake_if_due()
            await anyio.lowlevel.checkpoint()
        self._dispatch.bidder.wakeup.set()

    async def _run_job(self, job: Job, worker: Worker[Job]) -> None:
        requester.set(job)
        ended: list[CellResult] | Failure
        try:
            returned = await call_body(job, self._threads)
        except Exception as error:
            ended = self._classify(error)
        else:
            ended = body_results(job, returned, self._classify)
        assert self._workers is not None
        self._workers.retire(worker)
        self._job_ended(job, ended)
        self._step()
        self._wake_if_due()

    def _job_cancelled(self, job: Job) -> None:
        if job.timed_out:
            timeout = job.plan.column.timeout
            message = f"{job.plan.name}: no answer within {timeout:g} s" if timeout else "timed out"
            self._job_ended(job, Failure(FailureKind.PROVIDER_TIMEOUT, message), outcome=Outcome.LOCAL_TIMEOUT)
        else:
            self._job_ended(job, None)
        self._step()
        self._wake_if_due()

    # Steps

    def _step(self) -> None:
        """Decide and perform, until nothing more follows from what is known now."""
        now = anyio.current_time()
        bidder = self._dispatch.bidder
        bidder.attending = True
        core = self._core
        core.tick(now)
        while (task := self._deadlines.pop_due(now)) is not None:
            self._time_out(self._jobs[task])
        if self._stopping is None:
            verdict = self._stall.verdict(now)
            if verdict is not None:
                status = RunStatus.STALLED if verdict == "stalled" else RunStatus.HELD
                self._halt(status, 0.0 if verdict == "stalled" else self._options.grace)
        elif now >= self._stop_by and not self._cut:
            self._cut_short()
        self._perform(core.drain_effects())
        if self._stopping is None:
            self._dispatch.step(now)
            self._perform(core.drain_effects())
        bidder.attending = False
        if core.journal.waiting:
            self._committer.wakeup.set()
        if self._wants_room and self._room_for() > 0:
            self._room.set()
        self._read_paces(now)

    def _wake_if_due(self) -> None:
        """The loop sleeps until a time that may have come nearer, or waits for an end that has come."""
        if self._dispatch.unfinished or self._next_tick() < self._armed or self._over():
            self._dispatch.bidder.wakeup.set()

    def _next_tick(self) -> float:
        tick = min(self._core.salvage.next_tick(0.0), self._deadlines.next_at(), self._dispatch.next_tick())
        return min(tick, self._stop_by if self._stopping and not self._cut else self._stall.next_tick(-inf))

    def _over(self) -> bool:
        core = self._core
        if self._jobs or self._dispatch.bids or core.journal.backlog:
            return False
        if self._stopping is not None:
            return True
        if core.pending or self._intake.pulling:
            return False
        return self._intake.ended or (self._room_for() <= 0 and not core.finished)

    def _halt(self, status: RunStatus, grace: float) -> None:
        if self._stopping is None:
            self._stopping = status
            for task in self._dispatch.close():
                self._core.cancelled(task, anyio.current_time())
        self._stop_by = min(self._stop_by, anyio.current_time() + grace)
        self._room.set()
        self._dispatch.bidder.wakeup.set()

    def _cut_short(self) -> None:
        self._cut = True
        for job in list(self._jobs.values()):
            self._cancel_job(job)

    # Jobs

    def _refused(self, task: Task) -> bool:
        """Whether ``task`` may not start: its column was stopped, or cannot say how many tokens it needs."""
        core, now = self._core, anyio.current_time()
        if core.refused(task, now):
            return True
        column = core.plans[task.column].column
        if callable(column.tokens):
            try:
                self._estimates[task] = column.estimate(core.arguments(task, core.live_rows(task)))
            except Exception as error:
                core.failed(task, self._classify(error), Usage(), now, lane=core.plans[task.column].lane)
                return True
        return False

    def _request_of(self, task: Task) -> Request | None:
        plan = self._core.plans[task.column]
        if plan.resource is None:
            return None
        column = plan.column
        tokens = self._estimates.pop(task) if callable(column.tokens) else column.tokens or 0
        return Request(plan.resource, tokens, column.max_output_tokens or 0, flow=self.name, priority=0)

    def _start(self, task: Task, lease: Lease | None) -> None:
        core, now = self._core, anyio.current_time()
        plan = core.plans[task.column]
        self._estimates.pop(task, None)
        rows = core.live_rows(task)
        job = Job(
            task,
            plan,
            rows,
            core.arguments(task, rows),
            lease,
            now,
            controller=self._controller,
            classifier=self._classifier,
            meter=self._meter,
            flow=f"{self.name}/{plan.name}",
        )
        self._jobs[task] = job
        core.sent(task, now)
        if lease is not None:
            self._meter.of(plan.lane).started(lease.waited_s)
        if plan.column.timeout is not None:
            self._deadlines.set(task, now + plan.column.timeout)
        assert self._workers is not None
        job.worker = self._workers.start(job)

    def _job_ended(
        self, job: Job, ended: list[CellResult] | Failure | None, *, outcome: Outcome | None = None
    ) -> None:
        """``ended`` is what the job came to; None when it was cancelled."""
        now = anyio.current_time()
        task = job.task
        del self._jobs[task]
        self._deadlines.set(task, inf)
        self._dispatch.ended(local=job.plan.resource is None)
        if outcome is None:
            outcome = _outcome(ended)
        self._settle(job, ended, outcome, now)
        self._stall.progress(now)
        if ended is None or job.unwanted:
            self._core.cancelled(task, now)
        elif isinstance(ended, Failure):
            self._failed(job, ended, now)
        else:
            self._core.succeeded(task, ended, job.usage, now, sent_at=job.started_at)

    def _settle(self, job: Job, ended: object, outcome: Outcome, now: float) -> None:
        lease = job.lease
        if lease is None:
            return
        job.lease = None
        feedback = ended.feedback if isinstance(ended, Failure) else None
        self._meter.of(job.plan.lane).ended(outcome, now - lease.acquired_at, lease.usage)
        self._controller.release(lease, outcome, feedback=feedback)

    def _failed(self, job: Job, failure: Failure, now: float) -> None:
        resource = job.plan.resource
        cooldown = -inf if resource is None else self._controller.gate.blocked_until(resource)
        lane = job.plan.lane
        self._core.failed(job.task, failure, job.usage, now, lane=lane, cooldown_until=cooldown)
        if self._core.ledger.total and self._options.on_failure == "raise" and self._error is None:
            entry = next(iter(self._core.ledger))
            self._error = RowFailed(f"row {entry.row}, {entry.column}: {entry.kind.value}: {entry.message}")
            self._halt(RunStatus.STOPPED, 0.0)

    def _denied(self, task: Task, denied: Denied) -> None:
        message = f"{denied.resource}: {denied.reason.value.replace('_', ' ')}"
        failure = Failure(FailureKind.ADMISSION_DENIED, message)
        lane = self._core.plans[task.column].lane
        self._core.failed(task, failure, Usage(), anyio.current_time(), lane=lane)

    def _time_out(self, job: Job) -> None:
        job.timed_out = True
        self._cancel_job(job)

    def _cancel_job(self, job: Job) -> None:
        assert self._workers is not None
        if job.worker is not None:
            self._workers.cancel(job.worker, job)

    def _classify(self, error: BaseException) -> Failure:
        return self._classifier.classify(error, wall_now=self._wall_clock())

    # Effects

    def _perform(self, effects: list[CoreEffect]) -> None:
        for effect in effects:
            match effect:
                case Cancel(task=task):
                    self._cancel_task(task)
                case Block(lane=lane, until=until):
                    self._block(lane, until)
                case Reopened(lane=lane):
                    self._unblock(lane)
                case LaneParked(lane=lane, kind=kind, message=message):
                    self._notices.append(f"{lane} is parked ({kind.value}): {message}")
                    self._block(lane, inf)

    def _cancel_task(self, task: Task) -> None:
        job = self._jobs.get(task)
        if job is not None:
            job.unwanted = True
            self._cancel_job(job)
            return
        self._dispatch.withdraw(task)
        self._core.cancelled(task, anyio.current_time())

    def _block(self, lane: str, until: float) -> None:
        scope = self._intake.scope_of(lane)
        if scope is None:
            self._dispatch.block_local(lane, until)
        else:
            self._controller.block(scope, until)

    def _unblock(self, lane: str) -> None:
        scope = self._intake.scope_of(lane)
        if scope is None:
            self._dispatch.block_local(lane, -inf)
        else:
            self._controller.unblock(scope)

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

    def _room_for(self) -> int:
        core = self._core
        waiting = len(core.finished)
        owed = core.owed if self._intake.group_rows > 1 else 0
        capacity = max(self._intake.capacity(), float(self._options.min_open_rows) / 2)
        return self._window.room(
            capacity=capacity,
            load=core.frontier.load + waiting,
            open_rows=min(len(core.rows) + waiting, self._options.max_open_rows - owed),
            open_bytes=core.open_bytes,
            owed=owed,
        )

    def _offer_room(self) -> None:
        if self._wants_room and self._room_for() > 0:
            self._room.set()

    def _read_paces(self, now: float) -> None:
        for lane, resource in self._intake.resources.items():
            pace = pace_of(lane, resource, self._core, self._dispatch, self._controller, self._meter)
            self._meter.of(lane).turn(pace, self._controller.gate.capacity(resource), now)

    # The end

    async def _conclude(self) -> None:
        core = self._core
        core.leave_open()
        self._read_paces(anyio.current_time())
        status = self._status()
        await self._handle.finish(status.value)
        self._report = summarize(
            self.name,
            status,
            core,
            self._meter,
            self._controller,
            seconds=anyio.current_time() - self._started_at,
            notices=tuple(self._notices),
            resume_hint=self._resume_hint if status in _RESUMABLE else "",
            read=self._read,
        )
        self._report.check()

    def _status(self) -> RunStatus:
        if self._stopping is not None:
            return self._stopping
        tally = self._core.tally
        if tally.held:
            return RunStatus.HELD
        return RunStatus.COMPLETED_WITH_FAILURES if tally.failed else RunStatus.COMPLETED

    def _give_back(self) -> None:
        """Whatever ended the run, no lease and no bid stays behind (A2, S7)."""
        self._dispatch.close()
        for job in self._jobs.values():
            if job.lease is not None:
                self._controller.release(job.lease, Outcome.CANCELLED)
                job.lease = None
        self._jobs.clear()


_RESUMABLE = frozenset({RunStatus.HELD, RunStatus.STALLED, RunStatus.STOPPED, RunStatus.BUDGET_EXHAUSTED})


def _outcome(ended: list[CellResult] | Failure | None) -> Outcome:
    if ended is None:
        return Outcome.CANCELLED
    return TABLE[ended.kind].outcome if isinstance(ended, Failure) else Outcome.SUCCESS


def _single(error: BaseException) -> BaseException:
    """The one error inside the groups that task groups wrap around it."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if len(group.exceptions) != 1:
            break
        error = group.exceptions[0]
    return error
