"""Long-lived workers that run column bodies one after another.

A worker takes its next job without parking when one is handed to it while it reports the last one, which is the
common case under load: the cost of a job is then a few microseconds, not that of a new task. A worker is cancelled
through its own scope, and only while it runs the job that is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ..wakeup import Wakeup
from .turnstile import Ticket, Turnstile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

__all__ = ["DISMISSED_PER_TURN", "JOBS_PER_TURN", "Worker", "Workers"]

J = TypeVar("J")

JOBS_PER_TURN = 32
JOBS_PER_WAIT = 8
"""So many jobs end in one turn of the loop, all workers together: some 5 ms. The one place where work yields, so that
no stall grows with the number of workers or of answers that come at once (T25, T29). Having waited, a worker may end
some more, since a wait costs as much as a job that does nothing."""

DISMISSED_PER_TURN = 256
"""Workers that end in one turn of the loop when the run does: some 20 us each."""


class Worker(Generic[J]):
    """One task that runs jobs. ``job`` is what it runs, or is about to run."""

    __slots__ = ("cancelled", "condemned", "job", "parked", "scope", "ticket", "wakeup")

    def __init__(self) -> None:
        self.job: J | None = None
        self.condemned: J | None = None  # a job that was cancelled before the worker could take it up
        self.scope: anyio.CancelScope | None = None
        self.cancelled = False  # whether its scope is: asking the scope itself costs a call for every job
        self.parked = False
        self.wakeup = Wakeup()
        self.ticket = Ticket()


class Workers(Generic[J]):
    """Up to ``most`` workers, started as they are needed.

    ``run`` performs a job and reports its end itself; it must raise nothing but cancellation. ``cancelled`` is told of
    a job whose worker was cancelled in it.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        run: Callable[[J, Worker[J]], Awaitable[None]],
        cancelled: Callable[[J], None],
        *,
        most: int,
    ) -> None:
        self._tasks = tasks
        self._run = run
        self._cancelled = cancelled
        self._most = most
        self._idle: list[Worker[J]] = []
        self._all: set[Worker[J]] = set()
        self.turnstile = Turnstile(JOBS_PER_TURN, JOBS_PER_WAIT)
        tasks.start_soon(self.turnstile.run)

    @property
    def free(self) -> int:
        """How many more jobs could be started now."""
        return len(self._idle) + self._most - len(self._all)

    def start(self, job: J) -> Worker[J]:
        """Hand ``job`` to an idle worker, or to a new one. The caller has seen ``free`` above zero."""
        if self._idle:
            worker = self._idle.pop()
            worker.job = job
            if worker.parked:  # else it reports its last job just now, and looks for the next one by itself
                worker.wakeup.set()
            return worker
        assert len(self._all) < self._most
        fresh: Worker[J] = Worker()  # not Worker[J](): that would keep account of its type arguments at each call
        fresh.job = job
        self._all.add(fresh)
        self.turnstile.begin(lambda: self._tasks.start_soon(self._work, fresh))
        return fresh

    def retire(self, worker: Worker[J]) -> None:
        """``worker`` is done with its job: it may be given another, also before its ``run`` returns."""
        worker.job = None
        if not worker.cancelled:
            self._idle.append(worker)
        else:
            self._all.discard(worker)  # cancelled as it finished: its task ends, and another may take its place

    async def dismiss(self) -> None:
        """No more jobs will come: let the workers go home, not all in one turn of the loop."""
        while self._idle:
            for worker in self._idle[-DISMISSED_PER_TURN:]:
                self._all.discard(worker)
                worker.wakeup.set()
            del self._idle[-DISMISSED_PER_TURN:]
            await checkpoint()

    def cancel(self, worker: Worker[J], job: J) -> None:
        """Cancel ``job`` if ``worker`` still runs it."""
        if worker.job is not job:
            return
        if worker.scope is None:
            worker.condemned = job
        else:
            worker.cancelled = True
            worker.scope.cancel()

    async def _work(self, worker: Worker[J]) -> None:
        while True:
            with anyio.CancelScope() as scope:
                worker.scope = scope
                worker.cancelled = worker.job is not None and worker.job is worker.condemned
                if worker.cancelled:
                    scope.cancel()
                worker.condemned = None
                await self._serve(worker)
            if worker not in self._all:
                return
            job, worker.job = worker.job, None
            worker.scope = None
            self._idle.append(worker)
            if job is not None:
                self._cancelled(job)

    async def _serve(self, worker: Worker[J]) -> None:
        run = self._run
        while not worker.cancelled:
            job = worker.job
            if job is None:
                if worker not in self._all:
                    return
                worker.parked = True
                try:
                    await worker.wakeup.wait()
                finally:
                    worker.parked = False
                continue
            await run(job, worker)
