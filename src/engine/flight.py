"""The jobs of a run that are in flight: starting them, timing them out, cancelling them, settling their leases.

Decides nothing: it runs column bodies on workers and reports how each job ended, once, whatever happened to it.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol, cast

import anyio
from anyio.lowlevel import checkpoint

from ..salvage.classify import Failure
from ..salvage.kinds import TABLE, FailureKind
from ..values import Outcome
from .deadlines import Deadlines
from .first_request import flow_of
from .jobs import GroupResults, Job, ThreadRunner, body_results
from .requests import Sender, requester
from .workers import Worker, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from anyio.abc import TaskGroup

    from ..admission.controller import AdmissionController
    from ..admission.values import Lease
    from ..salvage.classify import Classifier
    from ..scheduler.tasks import Task
    from .core import RunCore
    from .meter import Meter
    from .spending import Spending
    from .telling import RunTeller
    from .values import CellResult

__all__ = ["CANCELS_PER_TURN", "RESULTS_PER_TURN", "Flight", "Witness", "is_cancelled"]

CANCELS_PER_TURN = 64
"""Jobs that are cancelled in one turn of the loop. All of them end in the next one, whatever the turnstile says (T25);
so the end of a job cancels none by itself."""

RESULTS_PER_TURN = 1024
"""Values of one group body that are validated and encoded in one turn of the loop, at some 4 us each."""

_SUCCESS = Outcome.SUCCESS  # named once: most jobs end so, and looking up an enum's member is slow


class Witness(Protocol):
    """Whoever notes which tasks are at work."""

    def began(self, task: Hashable, row: int, column: str) -> None:
        """``task`` is at work: a cell, or a group column for the group that begins with ``row``."""
        ...

    def ended(self, task: Hashable) -> None:
        """``task`` is at work no more."""
        ...


class Flight:
    """Every job between its start and its end.

    ``ended`` is told of each end: the results, or why it failed, neither when it was cancelled; and the outcome with
    which it has to :meth:`settle` the job.
    """

    def __init__(
        self,
        run: str,
        core: RunCore,
        controller: AdmissionController,
        classifier: Classifier,
        meter: Meter,
        threads: ThreadRunner,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        ended: Callable[[Job, list[CellResult] | None, Failure | None, Outcome, float], None],
        teller: RunTeller | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._teller = teller
        self._around = teller if teller is not None and teller.surrounds else None
        self.spending = spending
        """The account of the run, if one is kept. To be read only."""
        self._core = core
        self._controller = controller
        self._classifier = classifier
        # By column: how the requests of its bodies go out, and the meter of its model, if it has one.
        self._senders = [
            Sender(controller, classifier, meter, flow_of(run, plan.name), teller, spending) for plan in core.plans
        ]
        self._meters = [None if plan.resource is None else meter.of(plan.lane) for plan in core.plans]
        self._threads = threads
        self._clock = clock
        self._wall_clock = wall_clock
        self._ended = ended
        self._workers: Workers[Job] | None = None
        self.jobs: dict[Task, Job] = {}
        """What runs, to be read only."""
        self.deadlines: Deadlines[Task] = Deadlines()
        self.witness: Witness | None = None
        """Who is told what runs, so that it is known when the process has died of it."""
        self.cut_off: tuple[tuple[int, str], ...] = ()
        """What ran when all of it was cancelled, by row and column; of a group its first row."""
        self.condemned: deque[Job] = deque()
        """Jobs that are to be stopped, and have not been told yet."""

    def open(self, tasks: TaskGroup, most: int) -> None:
        """Run up to ``most`` jobs at once in ``tasks`` from now on."""
        self._workers = Workers(tasks, self._run_job, self._job_cancelled, most=most)

    def start(self, task: Task, lease: Lease | None, now: float) -> None:
        """Run ``task``; its lease, if it has a model, is held already."""
        core, column = self._core, task.column
        plan = core.plans[column]
        rows, arguments = core.inputs(task)
        job = self.jobs[task] = Job(task, plan, rows, arguments, lease, now, self._senders[column])
        if self.witness is not None:
            self.witness.began(job, rows[0], plan.name)
        core.sent(task, plan, now)
        if self._teller is not None:
            self._teller.task_started(job)
        if lease is not None and (meter := self._meters[column]) is not None:
            meter.started(lease.waited_s)
        if plan.column.timeout is not None:
            self.deadlines.begin(task, plan.column.timeout, now)
        assert self._workers is not None
        job.worker = self._workers.start(job)

    def cancel(self, task: Task) -> bool:
        """Stop ``task``, whose result nobody wants any more. False if it does not run."""
        job = self.jobs.get(task)
        if job is None:
            return False
        job.unwanted = True
        self.condemned.append(job)
        return True

    def cancel_all(self) -> None:
        """Stop everything that runs; the tasks are left for a later run."""
        self.cut_off = tuple((job.rows[0], job.plan.name) for job in self.jobs.values())
        self.condemned.extend(self.jobs.values())

    def cut(self, now: float, most: int = CANCELS_PER_TURN) -> None:
        """Stop up to ``most`` jobs: those that nobody wants, then those that run for longer than their columns allow.

        One that ends before its turn has come has ended; what it got counts unless nobody wants it.
        """
        while most and self.condemned:
            job = self.condemned.popleft()
            if self.jobs.get(job.task) is job:
                self._cancel(job)
                most -= 1
        while most and (task := self.deadlines.pop_due(now)) is not None:
            job = self.jobs[task]
            job.timed_out = True
            self._cancel(job)
            most -= 1

    async def dismiss(self) -> None:
        """No more jobs will be started."""
        assert self._workers is not None
        await self._workers.dismiss()

    def give_back(self) -> None:
        """Whatever ended the run, no lease stays behind (A2, S7)."""
        for job in self.jobs.values():
            job.end_attempts()
            self.settle(job, None, Outcome.CANCELLED, anyio.current_time())
        self.jobs.clear()

    def settle(self, job: Job, failure: Failure | None, outcome: Outcome, now: float) -> None:
        """Give back the lease of ``job``, if it still has it."""
        lease, meter = job.lease, self._meters[job.plan.index]
        if lease is None or meter is None:
            return
        job.lease = None
        meter.ended(outcome, now - lease.acquired_at, lease.usage)
        if self._teller is not None:
            self._teller.request_ended(job.task, job.plan.lane, lease, outcome, now - lease.acquired_at)
        self._controller.release(lease, outcome, feedback=None if failure is None else failure.feedback, now=now)

    def classify(self, error: BaseException) -> Failure:
        """What ``error`` means."""
        return self._classifier.classify(error, wall_now=self._wall_clock())

    async def _run_job(self, job: Job, worker: Worker[Job]) -> None:
        requester.set(job)
        returned: object = None
        error: Exception | Failure | None = None
        try:
            column = job.plan.column
            if self._around is not None:
                returned = await self._within(self._around, job)
            elif column.is_async:
                returned = await column.fn(**job.arguments)
            else:
                returned = await self._threads(partial(column.fn, **job.arguments))
        except Exception as raised:
            if is_cancelled():
                await anyio.sleep_forever()  # the body made an error of our cancellation, which goes on here
            error = raised
        except BaseException as raised:
            error = await _cut_short(job, raised)
        # What the answer means is found out behind the turnstile: it costs more than all that came before.
        workers = self._workers
        assert workers is not None
        if error is None and len(job.rows) > RESULTS_PER_TURN:
            returned = GroupResults(job, returned, self.classify)
        try:
            if not workers.turnstile.enter(worker.ticket):
                await workers.turnstile.wait(worker.ticket)
            while isinstance(returned, GroupResults) and returned.judge(RESULTS_PER_TURN):
                await checkpoint()
        finally:  # also when it was cancelled while it waited: what it got was paid for
            try:
                if error is None:
                    ended = body_results(job, returned, self.classify)
                else:
                    ended = error if isinstance(error, Failure) else self.classify(error)
            finally:
                error = None  # its traceback holds this frame, and this frame it: only a collection would free the two
            workers.retire(worker)
            if isinstance(ended, Failure):
                self._finish(job, None, ended, TABLE[ended.kind].outcome)
            else:
                self._finish(job, ended, None, _SUCCESS)

    async def _within(self, around: RunTeller, job: Job) -> object:
        """Call the body with whatever sinks of events want around it."""
        column, entered = job.plan.column, around.enter_body(job)
        try:
            if column.is_async:
                return await column.fn(**job.arguments)
            return await self._threads(partial(column.fn, **job.arguments))
        finally:
            around.leave_body(entered)

    def _job_cancelled(self, job: Job) -> None:
        if not job.timed_out:
            self._finish(job, None, None, Outcome.CANCELLED)
            return
        timeout = job.plan.column.timeout
        failure = Failure(FailureKind.PROVIDER_TIMEOUT, f"{job.plan.name}: no answer within {timeout:g} s")
        self._finish(job, None, failure, Outcome.LOCAL_TIMEOUT)

    def _finish(self, job: Job, results: list[CellResult] | None, failure: Failure | None, outcome: Outcome) -> None:
        clock, ended = self._clock, self._ended
        now, task, timeout = clock(), job.task, job.plan.column.timeout
        del self.jobs[task]
        if self.witness is not None:
            self.witness.ended(job)
        if timeout is not None:
            self.deadlines.end(task, timeout)
        job.over = True
        if job.attempts:
            job.end_attempts()
        if self.spending is not None:
            if job.lease is not None:
                self.spending.answered(task, job.plan.lane, outcome, job.lease.usage)
            self.spending.ended(task, results is not None)
        ended(job, results, failure, outcome, now)

    def _cancel(self, job: Job) -> None:
        assert self._workers is not None
        if job.worker is not None:
            self._workers.cancel(job.worker, job)


async def _cut_short(job: Job, raised: BaseException) -> Failure:
    """What it means that the body of ``job`` raised what is no Exception. A cancellation of ours goes on."""
    cancelled = anyio.get_cancelled_exc_class()
    if not is_cancelled():
        if isinstance(raised, cancelled):  # a future or task that it awaited was cancelled by somebody else (T62)
            return Failure(FailureKind.CONNECTION_ERROR, f"{job.plan.name}: something that it awaited was cancelled")
    elif isinstance(raised, BaseExceptionGroup):  # a nursery of trio keeps our cancellation beside errors of its tasks
        _, others = cast("BaseExceptionGroup[BaseException]", raised).split(cancelled)
        if others is None or isinstance(others, Exception):
            await anyio.sleep_forever()
    raise raised


def is_cancelled() -> bool:
    """Whether a scope around this place was cancelled."""
    return anyio.current_effective_deadline() == -inf
