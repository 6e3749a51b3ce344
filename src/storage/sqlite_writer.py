"""The one thread that writes a SQLite store: it owns the connection, and commits in groups.

Theory of operation
-------------------
SQLite allows one writer, and a commit that survives power loss costs an fsync, whatever it holds. So
everybody hands jobs to one thread, and while it waits for the disk the next ones gather; it takes all of them
into one transaction. Each job runs inside a savepoint of its own, so that one which fails takes nothing
along. Only after COMMIT are the waiting tasks told, with a single wake-up per event loop (D1; T51).

If SQLite gives up the whole transaction (a full disk does that), the jobs of the group are run again one by
one, so that only those fail which really cannot be done. That is safe because every job may be repeated.

A task that is cancelled while it waits leaves its job in the queue: the commit happens and nobody hears of
it.

Another process that holds the lock is waited for, with a bound, then it is StoreUnavailable (T55).

Prior art: group commit as in every database's log writer.
"""

from __future__ import annotations

import atexit
import sqlite3
import threading
from dataclasses import dataclass
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from ..errors import StoreError
from . import rules
from .signals import Signal, send
from .sqlite_file import is_busy
from .sqlite_schema import meaning_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Writer"]

T = TypeVar("T")

_QUEUE_LIMIT: Final = 256
"""Jobs that may wait; further ones wait for room in their own tasks. Also the largest group."""
_LEAVE_S: Final = 60.0
"""How long the end of the process may wait for the jobs of a store that nobody closed."""


@dataclass(slots=True, eq=False)
class _Job:
    """Something to do on the connection, and what came of it. The thread fills it, then sends ``done``."""

    work: Callable[[sqlite3.Connection], object]
    writes: bool
    subject: str
    prepare: Callable[[], int] | None
    done: Signal
    size: int = 0
    result: object = None
    error: Exception | None = None
    settled: bool = False

    def refuse(self, error: Exception, cause: BaseException | None = None) -> None:
        self.error = error
        error.__cause__ = cause


class Database(Protocol):
    """What the writer writes to. All calls come from its thread."""

    @property
    def path(self) -> Path:
        """Where it is, for messages."""
        ...

    def connection(self) -> sqlite3.Connection:
        """Return the connection, opening it if need be. Raises sqlite3.Error, StoreError."""
        ...

    def begin(self, *, writes: bool) -> None:
        """Begin a transaction. Raises sqlite3.Error."""
        ...

    def commit(self) -> None:
        """End it; what was written is durable on return. Raises sqlite3.Error, StoreError."""
        ...

    def wrote(self, size: int) -> None:
        """A transaction of about ``size`` bytes was committed."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Writer:
    """Runs jobs on one connection in one thread. Safe to use from several event loops."""

    def __init__(self, file: Database) -> None:
        self._file = file
        self._path = file.path
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Guards the four below, between loops and the thread; held for a few instructions only.
        self._lock = threading.Lock()
        self._closing = False
        self._ended = False
        self._want_room: list[Signal] = []
        self._want_end: list[Signal] = []

    async def run(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        writes: bool = True,
        subject: str = "",
        prepare: Callable[[], int] | None = None,
    ) -> T:
        """Run ``work`` in a transaction and return its result once that is committed.

        ``work`` may be run more than once. Only jobs of one ``subject`` share a transaction. ``prepare`` is called once
        before, in the thread too, when no transaction is open, and says about how many bytes ``work`` writes. Raises
        what either raises (and then undoes what ``work`` did), StoreUnavailable, StoreFull and the other store errors,
        StoreError when closed.
        """
        job = _Job(work, writes, subject, prepare, Signal())
        while (room := self._hand_in(job)) is not None:
            await room.wait()
        await job.done.wait()
        if job.error is not None:
            raise job.error
        return cast("T", job.result)

    @property
    def waiting(self) -> int:
        """How many jobs wait for the thread to take them."""
        return self._jobs.qsize()

    async def aclose(self) -> None:
        """Do what was handed in, close the file, end the thread."""
        with self._lock:
            self._close()
            if self._thread is None:
                return
            end = Signal()
            if not self._ended:
                self._want_end.append(end)
        if not self._ended:
            await end.wait()
        self._thread.join()  # it has said goodbye already, so this takes no time

    def _hand_in(self, job: _Job) -> Signal | None:
        """Queue the job, or return the signal that says when to try again."""
        with self._lock:
            if self._closing:
                raise rules.closed(str(self._path))
            if self._thread is None:
                self._start()
            elif not self._thread.is_alive():
                raise StoreError(f"{self._path}: its writer thread is gone; open a store after a fork, not before it")
            if self._jobs.qsize() < _QUEUE_LIMIT:
                self._jobs.put(job)
                return None
            room = Signal()
            self._want_room.append(room)
            return room

    def _start(self) -> None:
        # A daemon, because a store that nobody closed must not keep the process from ending; what was handed
        # in is still written then, by the exit function.
        self._thread = threading.Thread(target=self._serve, name=f"headgate-store-{self._path.name}", daemon=True)
        self._thread.start()
        atexit.register(self._leave)

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._jobs.put(None)

    def _leave(self) -> None:
        with self._lock:
            self._close()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(_LEAVE_S)

    # From here on everything runs in the thread.

    def _serve(self) -> None:
        more = True
        jobs: list[_Job] = []
        try:
            while more:
                jobs, more = self._take()
                for (writes, _), group in groupby(jobs, key=lambda job: (job.writes, job.subject)):
                    served = list(group)
                    if ready := [job for job in served if self._is_prepared(job)]:
                        self._perform(ready, writes=writes)
                    self._settle(served)
        finally:
            self._end(jobs)

    def _take(self) -> tuple[list[_Job], bool]:
        """Return all jobs that wait, and whether more may come; waits for the first."""
        jobs: list[_Job] = []
        head = self._jobs.get()
        try:
            while head is not None:
                jobs.append(head)
                if len(jobs) == _QUEUE_LIMIT:
                    break
                head = self._jobs.get_nowait()
        except Empty:
            pass
        with self._lock:
            waiting, self._want_room = self._want_room, []
        send(waiting)
        return jobs, head is not None

    def _settle(self, jobs: list[_Job]) -> None:
        for job in jobs:
            job.settled = True
        send(job.done for job in jobs)

    def _end(self, jobs: list[_Job]) -> None:
        """Close the file and tell everybody. Jobs are left only if this thread fails, a fault of ours."""
        self._file.close()
        with self._lock:
            self._closing = self._ended = True
            waiting, self._want_end, self._want_room = [*self._want_room, *self._want_end], [], []
        jobs = [job for job in jobs if not job.settled]
        while not self._jobs.empty():
            jobs.extend(job for job in [self._jobs.get()] if job is not None)
        for job in jobs:
            job.refuse(StoreError(f"{self._path}: its writer thread failed"))
        self._settle(jobs)
        send(waiting)
        atexit.unregister(self._leave)

    def _perform(self, jobs: list[_Job], *, writes: bool) -> None:
        """Run jobs in one transaction and fill in what came of them. Never raises for a foreseen fault."""
        try:
            connection = self._file.connection()
            self._transact(connection, jobs, writes=writes)
        except StoreError as error:
            for job in jobs:
                job.refuse(type(error)(*error.args), error)
        except sqlite3.Error as error:
            if len(jobs) > 1 and not is_busy(error):
                for job in jobs:
                    self._perform([job], writes=writes)
                return
            for job in jobs:
                job.refuse(meaning_of(error, self._path), error)
        else:
            if writes:
                self._file.wrote(sum(job.size for job in jobs))

    def _is_prepared(self, job: _Job) -> bool:
        """Prepare the job; False if that fails, and its error says why."""
        try:
            job.size = 0 if job.prepare is None else job.prepare()
        except Exception as error:  # raised again where the job came from
            job.error = error
        return job.error is None

    def _transact(self, connection: sqlite3.Connection, jobs: list[_Job], *, writes: bool) -> None:
        self._file.begin(writes=writes)
        try:
            for job in jobs:
                connection.execute("SAVEPOINT job")
                self._attempt(connection, job)
                connection.execute("RELEASE job")
            self._file.commit()
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _attempt(self, connection: sqlite3.Connection, job: _Job) -> None:
        """Run one job inside its savepoint. Raises sqlite3.Error only if the whole transaction is lost."""
        job.error = None
        try:
            job.result = job.work(connection)
        except sqlite3.Error as error:
            if not connection.in_transaction:
                raise
            job.refuse(meaning_of(error, self._path), error)
        except Exception as error:  # raised again where the job came from
            job.error = error
        if job.error is not None:
            connection.execute("ROLLBACK TO job")
