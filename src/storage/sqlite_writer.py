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

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from ..errors import StoreError
from .job_thread import JobThread
from .sqlite_file import is_busy
from .sqlite_format import SQLITE_ERRORS, meaning_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from .job_thread import Job

__all__ = ["Writer"]

T = TypeVar("T")

_GROUP_BYTES: Final = 16 * 1024 * 1024
"""What one transaction writes, about, unless a single job writes more."""


@dataclass(slots=True)
class _Work:
    """What a job does on the connection. ``size`` is what ``prepare`` said."""

    work: Callable[[sqlite3.Connection], object]
    writes: bool
    subject: str
    prepare: Callable[[], int] | None
    size: int = 0


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
        self._thread: JobThread[_Work] = JobThread(str(file.path), self._serve, file.close)

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
        return cast("T", await self._thread.do(_Work(work, writes, subject, prepare)))

    @property
    def waiting(self) -> int:
        """How many jobs wait for the thread to take them."""
        return self._thread.waiting

    async def aclose(self) -> None:
        """Do what was handed in, close the file, end the thread."""
        await self._thread.aclose()

    # From here on everything runs in the thread.

    def _serve(self, jobs: list[Job[_Work]]) -> None:
        for (writes, _), group in groupby(jobs, key=lambda job: (job.work.writes, job.work.subject)):
            for together in _of_bounded_size(self._prepared(group)):
                self._perform(together, writes=writes)
                self._thread.settle(together)

    def _perform(self, jobs: list[Job[_Work]], *, writes: bool) -> None:
        """Run jobs in one transaction and fill in what came of them. Never raises for a foreseen fault."""
        try:
            connection = self._file.connection()
            self._transact(connection, jobs, writes=writes)
        except StoreError as error:
            for job in jobs:
                job.refuse(type(error)(*error.args), error)
        except SQLITE_ERRORS as error:
            if len(jobs) > 1 and not is_busy(error):
                for job in jobs:
                    self._perform([job], writes=writes)
                return
            for job in jobs:
                job.refuse(meaning_of(error, self._path), error)
        else:
            if writes:
                self._file.wrote(sum(job.work.size for job in jobs))

    def _prepared(self, jobs: Iterable[Job[_Work]]) -> Iterator[Job[_Work]]:
        """Prepare jobs. Those for which that fails are told why, and left out."""
        for job in jobs:
            try:
                job.work.size = 0 if job.work.prepare is None else job.work.prepare()
            except Exception as error:  # raised again where the job came from
                job.error = error
                self._thread.settle([job])
            else:
                yield job

    def _transact(self, connection: sqlite3.Connection, jobs: list[Job[_Work]], *, writes: bool) -> None:
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

    def _attempt(self, connection: sqlite3.Connection, job: Job[_Work]) -> None:
        """Run one job inside its savepoint. Raises sqlite3.Error only if the whole transaction is lost."""
        job.error = None
        try:
            job.result = job.work.work(connection)
        except SQLITE_ERRORS as error:
            if not connection.in_transaction:
                raise
            job.refuse(meaning_of(error, self._path), error)
        except Exception as error:  # raised again where the job came from
            job.error = error
        if job.error is not None:
            connection.execute("ROLLBACK TO job")


def _of_bounded_size(jobs: Iterable[Job[_Work]]) -> Iterator[list[Job[_Work]]]:
    group: list[Job[_Work]] = []
    size = 0
    for job in jobs:
        size += job.work.size
        if group and size > _GROUP_BYTES:
            yield group
            group, size = [], job.work.size
        group.append(job)
    if group:
        yield group
