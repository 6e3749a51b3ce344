"""What a run does in one step: it tells the core what happened, and performs what that decides.

The hot path has no loop of its own. A worker that ends a job reports it and takes one *step*: events go to the core,
effects are performed, ready tasks are placed, all synchronously; then the worker finds its next job already in its
hands. Nothing here waits: the task that does, and takes the steps that nobody else takes, is that of
:mod:`headgate.engine.main_loop`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

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
from .halt import Halt
from .pace import PaceReader
from .performer import Performer
from .report import RunStatus
from .starts import Starts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..admission.controller import AdmissionController
    from ..salvage.classify import Classifier, Failure
    from ..storage.ports import Batch, RunHandle
    from ..values import Outcome
    from .core import RunCore
    from .intake import Intake
    from .jobs import Job, ThreadRunner
    from .keeping import Keeper
    from .meter import Meter
    from .options import RunOptions
    from .recording import Recorder
    from .spending import Spending
    from .telling import RunTeller
    from .values import CellResult

__all__ = ["Steps"]


class Steps:
    """The steps of one run, and all that they work on."""

    def __init__(
        self,
        name: str,
        core: RunCore,
        intake: Intake,
        meter: Meter,
        *,
        controller: AdmissionController,
        classifier: Classifier,
        handle: RunHandle,
        keeper: Keeper,
        recorder: Recorder | None,
        options: RunOptions,
        threads: ThreadRunner,
        wall_clock: Callable[[], float],
        teller: RunTeller | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._teller = teller
        self.core = core
        self.intake = intake
        self.meter = meter
        self.controller = controller
        self._grace_s = options.grace
        self._one_failure_ends_it = options.on_failure == "raise"
        self._clock = loop_clock()
        now = meter.started_at
        self._stall = StallClock(now, stall_timeout_s=options.stall_timeout, deadline_at=now + options.deadline)
        self.flight = Flight(
            name,
            core,
            controller,
            classifier,
            meter,
            threads,
            clock=self._clock,
            wall_clock=wall_clock,
            ended=self._job_ended,
            teller=teller,
            spending=spending,
        )
        requests = FirstRequests(core, name)
        self.dispatch = Dispatch(
            core.dispatcher,
            controller,
            Starts(core, requests, self.flight, clock=self._clock, halt=self.halt, teller=teller, spending=spending),
            model_workers=options.max_workers,
            local_workers=options.local_workers,
        )
        self.performer = Performer(
            name,
            core,
            self.dispatch,
            self.flight,
            requests,
            intake,
            controller,
            patience_s=options.patience,
            teller=teller,
        )
        self.committer = Committer(handle, core.journal, keeper, self._committed, teller)
        self.armed = inf
        """Until when the run's own task sleeps; -inf while it does not."""
        self._starts_per_job = STARTS_PER_JOB
        self.paces = PaceReader(intake.resources, core, self.dispatch, controller, meter, recorder, teller)
        self.rows_ready = Wakeup()
        """Set when finished rows wait to be handed out, if they are."""
        self.streaming = False
        """Whether somebody takes the finished rows."""
        self.dropped_rows = False
        """Whether rows have finished that nobody took."""
        self.stopping = Halt()
        self.feeder = Feeder(intake, self.stopping, came=self._rows_came, broke=self._break)
        self.error: BaseException | None = None
        """What broke the run."""

    def step(self, now: float, alone: bool) -> None:
        """Decide and perform, until nothing more follows from what is known now.

        Not ``alone``: one of many steps in this turn of the loop, so a small one. The loop does what it leaves.
        """
        bidder = self.dispatch.bidder
        bidder.attending = True
        core = self.core
        if core.salvage.known:
            core.tick(now, HELD_PER_STEP if alone else HELD_PER_JOB)
        if alone:
            self._catch_up(now)
        if now >= self._stall.ends_at or core.finished or self.intake.pulling or self.stopping.status is not None:
            self._look_at_bounds(now)
        if core.effects:
            self.performer.perform(core.drain_effects())
        if self.stopping.status is None:
            self.feeder.take_now(now, alone=alone)
            self.dispatch.step(now, STARTS_PER_STEP if alone else self._starts_per_job)
            if alone:
                self._starts_per_job = 1 if self.dispatch.unfinished else STARTS_PER_JOB
            if core.effects:
                self.performer.perform(core.drain_effects())
        bidder.attending = False
        if self._one_failure_ends_it and self.error is None and core.ledger.total:
            entry = next(iter(core.ledger))
            self._break(RowFailed(f"row {entry.row}, {entry.column}: {entry.kind.value}: {entry.message}"), 0.0)
        if core.journal.waiting and not self.committer.wakeup.pending:
            self.committer.wakeup.set()
        if self.feeder.waits:
            self.feeder.look()
        if now >= self.paces.due_at:
            self.paces.read(now)

    def _catch_up(self, now: float) -> None:
        """Do a part of what is too much for one turn, and was left to the loop's own step."""
        if self.core.unfinished:
            self.core.go_on()
        if self.flight.condemned or now >= self.flight.deadlines.earliest:
            self.flight.cut(now)

    def _wake_if_due(self) -> None:
        """The loop sleeps until a time that may have come nearer, or waits for an end that has come."""
        dispatch, core = self.dispatch, self.core
        if dispatch.bidder.wakeup.pending:
            return
        over = not self.flight.jobs and ((core.dispatcher.passed and dispatch.exhausted(core)) or self.over())
        if over or dispatch.unfinished or self.feeder.more or self._next_event() < self.armed:
            dispatch.bidder.wakeup.set()

    def _next_event(self) -> float:
        """The next of the moments that may come nearer; those of the run as a whole only move away."""
        salvage, lane_opens = self.core.salvage, self.dispatch.next_tick()
        soonest = -inf if self.core.unfinished or self.flight.condemned else self.flight.deadlines.earliest
        if lane_opens < soonest:
            soonest = lane_opens
        return min(soonest, salvage.next_tick(0.0)) if salvage.known else soonest

    def next_tick(self) -> float:
        """Until when there is nothing to do, if nobody has news."""
        whole = self._stall.next_tick(-inf) if self.stopping.status is None else self.stopping.next_tick()
        return min(whole, self._next_event())

    def over(self) -> bool:
        """Whether nothing is left to do, and nothing more will come."""
        core = self.core
        if self.flight.jobs or self.dispatch.bids or core.journal.backlog or core.unfinished:
            return False
        if self.stopping.status is not None:
            return True
        if core.pending or self.intake.pulling:
            return False
        return self.intake.ended or (self.intake.room() <= 0 and not core.finished)

    def _look_at_bounds(self, now: float) -> None:
        """Deadline, stall and grace time."""
        if self.stopping.status is not None:
            if self.stopping.cuts(now):
                self.flight.cancel_all()
            return
        idle = not (self.core.pending or self.flight.jobs)
        waits = self.core.finished or (self.intake.pulling and idle)  # for its consumer, for its source
        self._stall.progress(now if waits else self.controller.paused_at(now))
        verdict = self._stall.verdict(now)
        if verdict == "stalled":
            self.halt(RunStatus.STALLED, 0.0)
        elif verdict == "deadline":
            self.halt(RunStatus.HELD)

    def halt(self, status: RunStatus, grace: float | None = None) -> None:
        """Start nothing more; what is in flight has ``grace`` seconds (None: the run's option)."""
        now, grace = self._clock(), self._grace_s if grace is None else grace
        if self.stopping.begin(status, now + grace):
            if self._teller is not None:
                self._teller.stopping(status, grace)
            for task in self.dispatch.close(now):
                self.core.cancelled(task, now)
        self.feeder.stop()
        self.dispatch.bidder.wakeup.set()

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
        self.dispatch.bidder.attending = True  # the step below takes whatever bid the lease goes to
        if job.lease is not None:
            self.flight.settle(job, failure, outcome, now)
        self.dispatch.ended(job.plan.resource is None)
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
        self.step(now, False)
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

    def _rows_came(self) -> None:
        """One of many lots that may come in this turn, or the source ended: the loop looks once, after them all."""
        self._hand_out()  # rows that an earlier run finished need no commit
        if not self.dispatch.bidder.wakeup.pending:
            self.dispatch.bidder.wakeup.set()

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
        intake, wakeup = self.intake, self.dispatch.bidder.wakeup
        if wakeup.pending:
            return  # the loop looks for itself
        if self.feeder.waits:
            self.feeder.look()
        elif intake.immediate and not intake.ended and intake.room() > 0:
            wakeup.set()
        if not self.core.finished and (self.core.dispatcher.passed or self.over()):
            wakeup.set()  # the run waited for nothing else, it may be
