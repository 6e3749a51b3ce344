"""One thread that does the jobs of many tasks, in groups: what stores with one writing connection share.

While the thread is busy with a group, for the disk mostly, the next jobs gather, and it takes all of them at once.
Who owns it says how a group is done; here is the rest: handing in with a bound, waking those who wait with one call
per event loop, ending, and what happens if nobody ends it.

Jobs are done in the order in which they were handed in. Beyond the bound they stand in line, and the thread itself
lets as many in as there is room for: no task is woken but by the end of its job. A task that is cancelled takes its
job out of the line; once it was taken in, it is done and nobody hears of it.

Prior art: group commit as in every database's log writer.
"""

from __future__ import annotations

import atexit
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ..errors import StoreError
from . import rules
from .signals import Signal, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["GROUP", "Job", "JobThread", "StoreThread"]

W = TypeVar("W")

GROUP: Final = 1024
"""Jobs of one group, and of the next one while it gathers. Further ones stand in line, and belong to their tasks."""
_LEAVE_S: Final = 60.0
"""How long the end of the process may wait for the jobs of a store that nobody closed."""


@dataclass(slots=True, eq=False)
class Job(Generic[W]):
    """Something to do, and what came of it. The thread fills it in, then settles it."""

    work: W
    done: Signal
    result: object = None
    error: Exception | None = None
    settled: bool = False

    def refuse(self, error: Exception, cause: BaseException | None = None) -> None:
        """Let the task that waits raise ``error``."""
        self.error = error
        error.__cause__ = cause


class StoreThread(threading.Thread):
    """The thread of a :class:`JobThread`. ``owes`` says whether it has yet to answer a task of an event loop (its
    native token): for clocks of virtual time, which must not move on meanwhile."""

    def __init__(self, run: Callable[[], object], name: str, owes: Callable[[object], bool]) -> None:
        # A daemon, because a store that nobody closed must not keep the process from ending; what was handed
        # in is still written then, by the exit function.
        super().__init__(target=run, name=f"headgate-store-{name}", daemon=True)
        self.owes = owes


class JobThread(Generic[W]):
    """Takes jobs from tasks of any event loop. ``serve`` does a group of them, in the thread.

    ``serve`` passes each job to ``settle`` and raises for faults of ours only. ``end`` is called last, in the thread.
    ``name`` stands in messages.
    """

    def __init__(self, name: str, serve: Callable[[list[Job[W]]], None], end: Callable[[], None]) -> None:
        self._name = name
        self._serve = serve
        self._end = end
        self._jobs: SimpleQueue[Job[W] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Guards the five below, between loops and the thread; held for a few instructions only.
        self._lock = threading.Lock()
        self._closing = False
        self._ended = False
        self._line: OrderedDict[Job[W], None] = OrderedDict()
        self._owed: Counter[object] = Counter()  # signals that are yet to be sent, by loop
        self._want_end: list[Signal] = []

    async def do(self, work: W) -> object:
        """Hand ``work`` in and return its result. Raises its error, StoreError when closed."""
        job = Job(work, Signal())
        self._hand_in(job)
        try:
            await job.done.wait()
        except BaseException:
            with self._lock:
                if job in self._line:
                    del self._line[job]
                    self._paid((job.done,))
            raise
        if job.error is not None:
            raise job.error
        return job.result

    @property
    def waiting(self) -> int:
        """How many jobs wait for the thread to take them."""
        return self._jobs.qsize() + len(self._line)

    @property
    def closing(self) -> bool:
        """Whether no more jobs are taken in."""
        return self._closing

    async def aclose(self) -> None:
        """Do what was handed in, end the thread."""
        with self._lock:
            self._close()
            if self._thread is None:
                return
            end = Signal()
            if not self._ended:
                self._want_end.append(end)
                self._owed[end.loop] += 1
        if not self._ended:
            await end.wait()
        self._thread.join()  # it has said goodbye already, so this takes no time

    def settle(self, jobs: Iterable[Job[W]]) -> None:
        """Tell the tasks that wait for ``jobs``. In the thread only."""
        told = list(jobs)
        for job in told:
            job.settled = True
        send(job.done for job in told)
        with self._lock:
            self._paid(job.done for job in told)

    def _hand_in(self, job: Job[W]) -> None:
        """Queue the job, or put it in line. Raises StoreError when closed."""
        with self._lock:
            if self._closing:
                raise rules.closed(self._name)
            if self._thread is None:
                self._start()
            elif not self._thread.is_alive():
                raise StoreError(f"{self._name}: its writer thread is gone; open a store after a fork, not before it")
            self._owed[job.done.loop] += 1
            if self._jobs.qsize() < GROUP and not self._line:
                self._jobs.put(job)
            else:
                self._line[job] = None

    def _start(self) -> None:
        self._thread = StoreThread(self._run, self._name, self._owes)
        self._thread.start()
        atexit.register(self._leave)

    def _owes(self, loop: object) -> bool:
        return self._owed[loop] > 0

    def _paid(self, signals: Iterable[Signal]) -> None:
        """These were sent, or nobody waits for them any more. With the lock held."""
        self._owed.subtract(signal.loop for signal in signals)
        self._owed = +self._owed  # keeps no loop for good

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._let_in(len(self._line))
            self._jobs.put(None)

    def _let_in(self, most: int) -> None:
        for _ in range(min(most, len(self._line))):
            self._jobs.put(self._line.popitem(last=False)[0])

    def _leave(self) -> None:
        with self._lock:
            self._close()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(_LEAVE_S)

    # From here on everything runs in the thread.

    def _run(self) -> None:
        more = True
        jobs: list[Job[W]] = []
        try:
            while more:
                jobs, more = self._take()
                if jobs:
                    self._serve(jobs)
        finally:
            self._finish(jobs)

    def _take(self) -> tuple[list[Job[W]], bool]:
        """Return all jobs that wait, and whether more may come; waits for the first."""
        jobs: list[Job[W]] = []
        head = self._jobs.get()
        try:
            while head is not None:
                jobs.append(head)
                if len(jobs) == GROUP:
                    break
                head = self._jobs.get_nowait()
        except Empty:
            pass
        with self._lock:
            self._let_in(GROUP - self._jobs.qsize())
        # None is put in last, so whoever takes it has taken everything.
        return jobs, head is not None

    def _finish(self, jobs: list[Job[W]]) -> None:
        """Let go of the connection and tell everybody. Jobs are left only if this thread fails, a fault of ours."""
        try:
            self._end()
        finally:  # whatever goes wrong there, nobody is to wait for ever
            self._tell_all(jobs)

    def _tell_all(self, jobs: list[Job[W]]) -> None:
        with self._lock:
            self._closing = self._ended = True
            waiting, self._want_end = self._want_end, []
            self._let_in(len(self._line))
        jobs = [job for job in jobs if not job.settled]
        while not self._jobs.empty():
            jobs.extend(job for job in [self._jobs.get()] if job is not None)
        for job in jobs:
            job.refuse(StoreError(f"{self._name}: its writer thread failed"))
        self.settle(jobs)
        send(waiting)
        with self._lock:
            self._paid(waiting)
        atexit.unregister(self._leave)
