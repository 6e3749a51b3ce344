"""The shell of one run: it performs what the core decides, and waits.

The hot path has no loop of its own. A worker that ends a job reports it and takes one *step*: events go to the core,
effects are performed, ready tasks are placed, all synchronously; then the worker finds its next job already in its
hands. The run's loop sleeps until time or another task has news for it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from ..errors import RowFailed
from ..salvage.kinds import FailureKind
from ..salvage.stall import StallClock
from ..wakeup import Wakeup, loop_clock
from .committer import Committer
from .core import HELD_PER_JOB, HELD_PER_STEP
from .dispatch import STARTS_PER_JOB, STARTS_PER_STEP, Dispatch
from .feeding import Feeder
from .first_request import FirstRequests
from .flight import Flight
from .halt import Halt, cause_of
from .keeping import Keeper
from .meter import Meter
from .pace import PaceReader
from .performer import Performer
from .recording import recorder_of
from .report import RunReport, RunStatus
from .starts import Starts
from .summary import status_of, summarize

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..admission.controller import AdmissionController
    from ..export import RunResults
    from ..salvage.classify import Classifier, Failure
    from ..storage.ports import Batch, RunHandle
    from ..values import Outcome, ResourceKey
    from .core import RunCore
    from .intake import Intake
    from .jobs import Job, ThreadRunner
    from .options import RunOptions
    from .spending import Spending
    from .telling import RunTeller
    from .values import CellResult

__all__ = ["RunLoop"]


class RunLoop:
    """Everything of a run that waits or performs. What its user sees of it is :class:`~headgate.engine.runs.Run`."""

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
        results: RunResults,
        resume_hint: str,
        notices: tuple[str, ...] = (),
        forget: Callable[[int], None] | None = None,
        in_part: bool = False,
        teller: RunTeller | None = None,
        spending: Spending | None = None,
    ) -> None:
        self.name = name
        self._teller = teller
        self.core = core
        self._intake = intake
        self.controller = controller
        self._handle = handle
        self._options = options
        self._one_failure_ends_it = options.on_failure == "raise"
        self._results = results
        self._resume_hint = resume_hint
        self._notices = notices
        self.forget = forget
        self._clock = loop_clock()
        now = self._clock()
        self.meter = Meter(now)
        self._stall = StallClock(now, stall_timeout_s=options.stall_timeout, deadline_at=now + options.deadline)
        self.flight = Flight(
            name,
            core,
            controller,
            classifier,
            self.meter,
            threads,
            clock=self._clock,
            wall_clock=wall_clock,
            ended=self._job_ended,
            teller=teller,
            spending=spending,
        )
        requests = FirstRequests(core, name)
        self._dispatch = Dispatch(
            core.dispatcher,
            controller,
            Starts(core, requests, self.flight, clock=self._clock, halt=self.halt, teller=teller, spending=spending),
            model_workers=options.max_workers,
            local_workers=options.local_workers,
        )
        self._performer = Performer(
            name,
            core,
            self._dispatch,
            self.flight,
            requests,
            intake,
            controller,
            patience_s=options.patience,
            teller=teller,
        )
        course = (handle, core, self.meter, controller, intake.resources, wall_clock())
        recorder = None if in_part else recorder_of(*course)
        keeper = Keeper(controller, wall_clock, now, recorder, run=handle.info, spending=None if in_part else spending)
        self._committer = Committer(handle, core.journal, keeper, self._committed, teller)
        self._armed = inf
        self._starts_per_job = STARTS_PER_JOB
        self._paces = PaceReader(intake.resources, core, self._dispatch, controller, self.meter, recorder, teller)
        self.rows_ready = Wakeup()
        self.streaming = False
        self.dropped_rows = False
        self.stopping = Halt()
        self.feeder = Feeder(intake, self.stopping, came=self._rows_came, broke=self._break)
        self.error: BaseException | None = None
        self.report: RunReport | None = None
        self.done = anyio.Event()

    # The run's own tasks

    @property
    def resources(self) -> dict[str, ResourceKey]:
        """The resources of the run by lane."""
        return self._intake.resources

    async def main(self) -> None:
        """Run to the end. Started once by the engine, in its task group; keeps what broke the run for ``wait``."""
        if self._teller is not None:
            self._teller.started(self._handle.info.epoch)
        try:
            async with anyio.create_task_group() as tasks:
                # Beyond max_workers each resource's one standing bid may be granted: see Dispatch.
                most = self._options.max_workers + len(self._intake.resources) + self._options.local_workers
                self.flight.open(tasks, most)
                tasks.start_soon(self._committer.run)
                if not self._intake.immediate:
                    tasks.start_soon(self.feeder.run)
                await self._loop()
                await self.flight.dismiss()
                tasks.cancel_scope.cancel()
            if self.error is None:
                await self._conclude()
            else:
                await self._committer.conclude()
                await self._handle.finish(status_of(self.stopping.ends_as, self.core.tally).value)
        except BaseException as error:
            self.error = self.error or cause_of(error, anyio.get_cancelled_exc_class())
            if not isinstance(error, Exception):
                raise
        finally:
            self._dispatch.close(anyio.current_time())
            self.flight.give_back()
            self._performer.leave()
            with anyio.CancelScope(shield=True):
                await self._handle.aclose()
                if self._teller is not None:
                    status = None if self.report is None else self.report.status
                    await self._teller.ended(self.core, status, self.error)
            self.done.set()
            self.rows_ready.set()

    async def _loop(self) -> None:
        while True:
            self._step(self._clock(), True)
            if not (self.flight.jobs or self.feeder.more) and self._dispatch.exhausted(self.core):
                self.halt(RunStatus.BUDGET_EXHAUSTED)
            if self._over():
                return
            if self._dispatch.unfinished or self.feeder.more or self.flight.condemned or self.core.unfinished:
                await anyio.lowlevel.checkpoint()
                continue
            self._armed = self._next_tick()
            await self._dispatch.bidder.wakeup.wait(self._armed)
            self._armed = -inf

    def _rows_came(self) -> None:
        """One of many lots that may come in this turn, or the source ended: the loop looks once, after them all."""
        self._hand_out()  # rows that an earlier run finished need no commit
        if not self._dispatch.bidder.wakeup.pending:
            self._dispatch.bidder.wakeup.set()

    # Steps

    def _step(self, now: float, alone: bool) -> None:
        """Decide and perform, until nothing more follows from what is known now.

        Not ``alone``: one of many steps in this turn of the loop, so a small one. The loop does what it leaves.
        """
        bidder = self._dispatch.bidder
        bidder.attending = True
        core = self.core
        if core.salvage.known:
            core.tick(now, HELD_PER_STEP if alone else HELD_PER_JOB)
        if alone:
            self._catch_up(now)
        if now >= self._stall.ends_at or core.finished or self._intake.pulling or self.stopping.status is not None:
            self._look_at_bounds(now)
        if core.effects:
            self._performer.perform(core.drain_effects())
        if self.stopping.status is None:
            self.feeder.take_now(now, alone=alone)
            self._dispatch.step(now, STARTS_PER_STEP if alone else self._starts_per_job)
            if alone:
                self._starts_per_job = 1 if self._dispatch.unfinished else STARTS_PER_JOB
            if core.effects:
                self._performer.perform(core.drain_effects())
        bidder.attending = False
        if self._one_failure_ends_it and self.error is None and core.ledger.total:
            entry = next(iter(core.ledger))
            self._break(RowFailed(f"row {entry.row}, {entry.column}: {entry.kind.value}: {entry.message}"), 0.0)
        if core.journal.waiting and not self._committer.wakeup.pending:
            self._committer.wakeup.set()
        if self.feeder.waits:
            self.feeder.look()
        if now >= self._paces.due_at:
            self._paces.read(now)

    def _catch_up(self, now: float) -> None:
        """Do a part of what is too much for one turn, and was left to the loop's own step."""
        if self.core.unfinished:
            self.core.go_on()
        if self.flight.condemned or now >= self.flight.deadlines.earliest:
            self.flight.cut(now)

    def _wake_if_due(self) -> None:
        """The loop sleeps until a time that may have come nearer, or waits for an end that has come."""
        dispatch = self._dispatch
        if dispatch.bidder.wakeup.pending:
            return
        over = not self.flight.jobs and ((dispatch.poor and dispatch.exhausted(self.core)) or self._over())
        if over or dispatch.unfinished or self.feeder.more or self._next_event() < self._armed:
            dispatch.bidder.wakeup.set()

    def _next_event(self) -> float:
        """The next of the moments that may come nearer; those of the run as a whole only move away."""
        salvage, lane_opens = self.core.salvage, self._dispatch.next_tick()
        soonest = -inf if self.core.unfinished or self.flight.condemned else self.flight.deadlines.earliest
        if lane_opens < soonest:
            soonest = lane_opens
        return min(soonest, salvage.next_tick(0.0)) if salvage.known else soonest

    def _next_tick(self) -> float:
        whole = self._stall.next_tick(-inf) if self.stopping.status is None else self.stopping.next_tick()
        return min(whole, self._next_event())

    def _over(self) -> bool:
        core = self.core
        if self.flight.jobs or self._dispatch.bids or core.journal.backlog or core.unfinished:
            return False
        if self.stopping.status is not None:
            return True
        if core.pending or self._intake.pulling:
            return False
        return self._intake.ended or (self._intake.room() <= 0 and not core.finished)

    def _look_at_bounds(self, now: float) -> None:
        """Deadline, stall and grace time."""
        if self.stopping.status is not None:
            if self.stopping.cuts(now):
                self.flight.cancel_all()
            return
        idle = not (self.core.pending or self.flight.jobs)
        waits = self.core.finished or (self._intake.pulling and idle)  # for its consumer, for its source
        self._stall.progress(now if waits else self.controller.paused_at(now))
        verdict = self._stall.verdict(now)
        if verdict == "stalled":
            self.halt(RunStatus.STALLED, 0.0)
        elif verdict == "deadline":
            self.halt(RunStatus.HELD)

    def halt(self, status: RunStatus, grace: float | None = None) -> None:
        """Start nothing more; what is in flight has ``grace`` seconds (None: the run's option)."""
        now, grace = self._clock(), self._options.grace if grace is None else grace
        if self.stopping.begin(status, now + grace):
            if self._teller is not None:
                self._teller.stopping(status, grace)
            for task in self._dispatch.close(now):
                self.core.cancelled(task, now)
        self.feeder.stop()
        self._dispatch.bidder.wakeup.set()

    def _break(self, error: Exception, grace: float | None = None) -> None:
        """End with ``error``, once what was paid for is in and committed."""
        self.error = self.error or error
        self.halt(RunStatus.STOPPED, grace)

    # Jobs

    def _job_ended(
        self, job: Job, results: list[CellResult] | None, failure: Failure | None, outcome: Outcome, now: float
    ) -> None:
        core = self.core
        closed = core.cells_closed
        self._dispatch.bidder.attending = True  # the step below takes whatever bid the lease goes to
        if job.lease is not None:
            self.flight.settle(job, failure, outcome, now)
        self._dispatch.ended(job.plan.resource is None)
        if job.unwanted:
            core.cancelled(job.task, now)
        elif results is not None:
            core.succeeded(job.task, results, job.usage, now, job.started_at)
        elif failure is not None:
            self._failed(job, failure, now)
        else:
            core.cancelled(job.task, now)
        if core.cells_closed != closed:
            self._stall.progress(now)
        if self._teller is not None:
            self._teller.task_ended(job.task, core, results is not None, now)
        self._step(now, False)
        self._wake_if_due()

    def _failed(self, job: Job, failure: Failure, now: float) -> None:
        if failure.kind is FailureKind.ADMISSION_DENIED and self.controller.gate.closed:
            self.core.cancelled(job.task, now)  # the engine closes: nobody's fault, and no row's end
            self.halt(RunStatus.STOPPED, 0.0)
            return
        resource = job.plan.resource
        cooldown = -inf if resource is None else self.controller.gate.blocked_until(resource)
        lane = job.plan.lane
        self.core.failed(job.task, failure, job.usage, now, lane=lane, cooldown_until=cooldown, sent_at=job.started_at)

    # Rows and commits

    def _committed(self, batch: Batch) -> None:
        teller, finished = self._teller, self.core.finished
        known = 0 if teller is None else len(finished)
        self.core.open.committed(batch)
        if teller is not None:
            teller.committed(batch.cells, finished, known)
        self._hand_out()
        self.offer_room()
        self._wake_if_due()

    def _hand_out(self) -> None:
        if not self.core.finished:
            return
        if self.streaming:
            self.rows_ready.set()
        else:
            self.dropped_rows = True
            self.core.open.let_go()

    def offer_room(self) -> None:
        """A finished row was taken, or a commit made room: let more rows in."""
        intake, wakeup = self._intake, self._dispatch.bidder.wakeup
        if wakeup.pending:
            return  # the loop looks for itself
        if self.feeder.waits:
            self.feeder.look()
        elif intake.immediate and not intake.ended and intake.room() > 0:
            wakeup.set()
        if not self.core.finished and self._over():
            wakeup.set()  # the run waited for nothing else

    # The end

    async def _conclude(self) -> None:
        self._paces.read(anyio.current_time())
        await self._committer.conclude()
        for _ in self.core.leave_open():
            await anyio.lowlevel.checkpoint()
        now, status = anyio.current_time(), status_of(self.stopping.ends_as, self.core.tally)
        self._paces.read(now)
        await self._handle.finish(status.value)
        self.report = summarize(
            self.name,
            status,
            self.core,
            self.meter,
            seconds=now - self.meter.started_at,
            notices=(*self._notices, *self._performer.notices),
            resume_hint=self._resume_hint,
            results=self._results,
            spending=self.flight.spending,
        )
        self.report.check()
