"""The jobs of a run that are in flight: starting them, timing them out, cancelling them, settling their leases.

Decides nothing: it runs column bodies on workers and reports how each job ended, once, whatever happened to it.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, cast

import anyio
from anyio.lowlevel import checkpoint

from ..admission.timers import Timers
from ..salvage.classify import Failure
from ..salvage.kinds import TABLE, FailureKind
from ..values import Outcome
from .first_request import flow_of
from .jobs import GroupResults, Job, ThreadRunner, body_results
from .requests import requester
from .workers import Worker, Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from ..admission.controller import AdmissionController
    from ..admission.values import Lease
    from ..salvage.classify import Classifier
    from ..scheduler.tasks import Task
    from .core import RunCore
    from .meter import Meter
    from .values import CellResult

__all__ = ["CANCELS_PER_TURN", "RESULTS_PER_TURN", "Flight", "JobEnd"]

CANCELS_PER_TURN = 64
"""Jobs that are cancelled in one turn of the loop. All of them end in the next one, whatever the turnstile says (T25);
so the end of a job cancels none by itself."""

RESULTS_PER_TURN = 1024
"""Values of one group body that are validated and encoded in one turn of the loop, at some 4 us each."""

JobEnd = "list[CellResult] | Failure | None"
"""How a job ended: its results, why it failed, or None when it was cancelled."""


class Flight:
    """Every job between its start and its end. ``ended`` is told of each end after its lease was given back."""

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
        ended: Callable[[Job, list[CellResult] | Failure | None, float], None],
    ) -> None:
        self._flows = [flow_of(run, plan.name) for plan in core.plans]
        self._core = core
        self._controller = controller
        self._classifier = classifier
        self._meter = meter
        self._threads = threads
        self._clock = clock
        self._wall_clock = wall_clock
        self._ended = ended
        self._workers: Workers[Job] | None = None
        self._jobs: dict[Task, Job] = {}
        self._deadlines: Timers[Task] = Timers()
        self._condemned: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def open(self, tasks: TaskGroup, most: int) -> None:
        """Run up to ``most`` jobs at once in ``tasks`` from now on."""
        self._workers = Workers(tasks, self._run_job, self._job_cancelled, most=most)

    def start(self, task: Task, lease: Lease | None, now: float) -> None:
        """Run ``task``; its lease, if it has a model, is held already."""
        core, plan = self._core, self._core.plans[task.column]
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
            flow=self._flows[plan.index],
        )
        self._jobs[task] = job
        core.sent(task, now)
        if lease is not None:
            self._meter.of(plan.lane).started(lease.waited_s)
        if plan.column.timeout is not None and plan.column.timeout != inf:
            self._deadlines.set(task, now + plan.column.timeout)
        assert self._workers is not None
        job.worker = self._workers.start(job)

    def cancel(self, task: Task) -> bool:
        """Stop ``task``, whose result nobody wants any more. False if it does not run."""
        job = self._jobs.get(task)
        if job is None:
            return False
        job.unwanted = True
        self._condemned.append(job)
        return True

    def cancel_all(self) -> None:
        """Stop everything that runs; the tasks are left for a later run."""
        self._condemned.extend(self._jobs.values())

    @property
    def condemned(self) -> bool:
        """Whether there are jobs that are to be stopped, and have not been told yet."""
        return bool(self._condemned)

    def cut(self, now: float, most: int = CANCELS_PER_TURN) -> None:
        """Stop up to ``most`` jobs: those that nobody wants, then those that run for longer than their columns allow.

        One that ends before its turn has come has ended; what it got counts unless nobody wants it.
        """
        while most and self._condemned:
            job = self._condemned.popleft()
            if self._jobs.get(job.task) is job:
                self._cancel(job)
                most -= 1
        while most and (task := self._deadlines.pop_due(now)) is not None:
            job = self._jobs[task]
            job.timed_out = True
            self._cancel(job)
            most -= 1

    def next_tick(self) -> float:
        """When the next job is to be stopped."""
        return -inf if self._condemned else self._deadlines.earliest

    async def dismiss(self) -> None:
        """No more jobs will be started."""
        assert self._workers is not None
        await self._workers.dismiss()

    def give_back(self) -> None:
        """Whatever ended the run, no lease stays behind (A2, S7)."""
        for job in self._jobs.values():
            self._settle(job, None, Outcome.CANCELLED, anyio.current_time())
        self._jobs.clear()

    def classify(self, error: BaseException) -> Failure:
        """What ``error`` means."""
        return self._classifier.classify(error, wall_now=self._wall_clock())

    async def _run_job(self, job: Job, worker: Worker[Job]) -> None:
        requester.set(job)
        returned: object = None
        error: Exception | Failure | None = None
        try:
            column = job.plan.column
            if column.is_async:
                returned = await cast("Awaitable[object]", column.fn(**job.arguments))
            else:
                returned = await self._threads(partial(column.fn, **job.arguments))
        except Exception as raised:
            if _is_cancelled():
                await anyio.sleep_forever()  # the body made an error of our cancellation, which goes on here
            error = raised
        except anyio.get_cancelled_exc_class():
            if _is_cancelled():
                raise
            # Not ours: a future or task that the body awaited was cancelled by somebody else (T62).
            error = Failure(FailureKind.CONNECTION_ERROR, f"{job.plan.name}: something that it awaited was cancelled")
        # What the answer means is found out behind the turnstile: it costs more than all that came before.
        assert self._workers is not None
        turnstile = self._workers.turnstile
        if error is None and len(job.rows) > RESULTS_PER_TURN:
            returned = GroupResults(job, returned, self.classify)
        try:
            if not turnstile.enter(worker.ticket):
                await turnstile.wait(worker.ticket)
            while isinstance(returned, GroupResults) and returned.judge(RESULTS_PER_TURN):
                await checkpoint()
        finally:  # cancelled while it waited: what it got was paid for
            try:
                self._done(job, worker, returned, error)
            finally:
                error = None  # its traceback holds this frame, and this frame it: only a collection would free the two

    def _done(self, job: Job, worker: Worker[Job], returned: object, error: Exception | Failure | None) -> None:
        ended: list[CellResult] | Failure
        if isinstance(returned, GroupResults):
            ended = returned.ended()
        elif error is None:
            ended = body_results(job, returned, self.classify)
        else:
            ended = error if isinstance(error, Failure) else self.classify(error)
        assert self._workers is not None
        self._workers.retire(worker)
        self._finish(job, ended, TABLE[ended.kind].outcome if isinstance(ended, Failure) else Outcome.SUCCESS)

    def _job_cancelled(self, job: Job) -> None:
        if not job.timed_out:
            self._finish(job, None, Outcome.CANCELLED)
            return
        timeout = job.plan.column.timeout
        failure = Failure(FailureKind.PROVIDER_TIMEOUT, f"{job.plan.name}: no answer within {timeout:g} s")
        self._finish(job, failure, Outcome.LOCAL_TIMEOUT)

    def _finish(self, job: Job, ended: list[CellResult] | Failure | None, outcome: Outcome) -> None:
        now = self._clock()
        del self._jobs[job.task]
        if job.plan.column.timeout is not None:
            self._deadlines.set(job.task, inf)
        self._settle(job, ended if isinstance(ended, Failure) else None, outcome, now)
        self._ended(job, ended, now)

    def _settle(self, job: Job, failure: Failure | None, outcome: Outcome, now: float) -> None:
        lease = job.lease
        if lease is None:
            return
        job.lease = None
        feedback = None if failure is None else failure.feedback
        self._meter.of(job.plan.lane).ended(outcome, now - lease.acquired_at, lease.usage)
        self._controller.release(lease, outcome, feedback=feedback, now=now)

    def _cancel(self, job: Job) -> None:
        assert self._workers is not None
        if job.worker is not None:
            self._workers.cancel(job.worker, job)


def _is_cancelled() -> bool:
    """Whether a scope around this place was cancelled."""
    return anyio.current_effective_deadline() == -inf
