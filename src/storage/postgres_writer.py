"""The one thread that writes a PostgreSQL store: it owns the connection, and commits in groups.

Theory of operation
-------------------
A commit that survives a crash of the server costs a flush of its log and a round trip, whatever it holds. So all
commits that wait go out as one (:mod:`headgate.storage.postgres_merge`), in a single statement that takes all of them
or none. If it is refused, or fails, the group is halved until what cannot be done stands alone and takes nothing along
(T32). Only after the server's answer are the tasks told (D1; T51).

When the connection breaks before the answer came, nobody knows whether the commit was done. The same statement is sent
again, with the same sequence number, on the next connection: it waits for the first one if the server still works at
it, and does nothing if that was done, even if the run has been opened by somebody else since. So the outcome becomes
known, and nothing is done twice. If no server answers within the patience of the connection, the task gets a
StoreUnavailable; what it commits again is compared with what is stored (D3).

A thread, not the event loop: turning records into what the server understands takes some microseconds each, which the
loop need not spend, it works on asyncio and trio alike, and reading back works without any loop.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar, cast

from ..errors import StoreError, StoreFull, StoreUnavailable
from . import postgres_reads, postgres_records, rules
from .job_thread import Job, JobThread
from .postgres_merge import merge
from .postgres_records import Refused
from .room import Room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .ports import Batch
    from .postgres_link import Link
    from .postgres_records import Opened

__all__ = ["PostgresWriter"]

T = TypeVar("T")

_GROUP_BYTES: Final = 16 * 1024 * 1024
"""Payload of one statement, unless a single batch has more. A message of PostgreSQL holds 1 GiB at most."""
_BATCH_BYTES: Final = 512 * 1024 * 1024
_RECORD_BYTES: Final = 256
"""What a record takes in tables and indexes beside its values, about. The truth is measured now and then."""


@dataclass(frozen=True, slots=True)
class _Commit:
    """A batch to be committed by an opening, whose values may have so many bytes, and the claims it is made under."""

    opened: Opened
    batch: Batch
    max_payload: int
    claims: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Call:
    """Something else to do with the connection, and a sequence number for it."""

    act: Callable[[Link, int], object]


_Work: TypeAlias = _Commit | _Call


class _Waiting(NamedTuple):
    """A commit of ``size`` bytes, and the job that waits for it."""

    job: Job[_Work]
    commit: _Commit
    size: int


class PostgresWriter:
    """Does commits and calls on one connection in one thread. Safe to use from several event loops.

    What would let the tables have more than ``max_bytes`` is StoreFull.
    """

    def __init__(self, link: Link, max_bytes: int | None = None) -> None:
        self._link = link
        self._max_bytes = max_bytes
        self._room = None if max_bytes is None else Room(max_bytes)
        self._thread: JobThread[_Work] = JobThread(link.where, self._serve, link.close)
        self._sequence = 0  # grows with each statement, and so for each opening

    async def commit(
        self, opened: Opened, batch: Batch, max_payload: int, claims: frozenset[tuple[int, int]] = frozenset()
    ) -> None:
        """Commit a batch with all others that wait. Raises what the port's ``commit`` names.

        ``max_payload`` is the bytes that one of its values may have. ``claims`` are the row groups that it touches in a
        shared run, each with its token.
        """
        await self._thread.do(_Commit(opened, batch, max_payload, claims))

    async def call(self, act: Callable[[Link, int], T]) -> T:
        """Do ``act`` with the connection and a sequence number of its own. Raises what it raises."""
        return cast("T", await self._thread.do(_Call(act)))

    @property
    def waiting(self) -> int:
        """How many jobs wait for the thread to take them."""
        return self._thread.waiting

    async def aclose(self) -> None:
        """Do what was handed in, close the connection, end the thread."""
        await self._thread.aclose()

    # From here on everything runs in the thread.

    def _serve(self, jobs: list[Job[_Work]]) -> None:
        commits: list[_Waiting] = []
        calls: list[tuple[Job[_Work], _Call]] = []
        for job in jobs:
            if isinstance(job.work, _Commit):
                commits.extend(self._measured(job, job.work))
            else:
                calls.append((job, job.work))
        for group in _groups(commits):
            self._commit(group)
            self._thread.settle(waiting.job for waiting in group)
        for job, call in calls:
            self._call(job, call)
            self._thread.settle([job])

    def _measured(self, job: Job[_Work], commit: _Commit) -> Iterator[_Waiting]:
        """Look at every record, here and not on the loop. Yields nothing for a batch that cannot be committed."""
        run = commit.opened.info.run
        size = 0
        try:
            size = rules.check_sizes(run, commit.batch, commit.max_payload)
            if size > _BATCH_BYTES:
                job.refuse(rules.batch_too_large(run, size, _BATCH_BYTES))
        except Exception as error:  # raised again where the job came from
            job.refuse(error)
        if job.error is None:
            yield _Waiting(job, commit, size)
        else:
            self._thread.settle([job])

    def _call(self, job: Job[_Work], call: _Call) -> None:
        try:
            job.result = call.act(self._link, self._next())
        except Exception as error:  # raised again where the job came from
            job.refuse(error, error.__cause__)

    def _commit(self, group: list[_Waiting]) -> None:
        """Commit a group of one opening, and fill in what came of it. Never raises for a foreseen fault."""
        opened = group[0].commit.opened
        sequence = self._next()
        try:
            merged = merge((waiting.commit.batch for waiting in group), opened.columns)
            claims = frozenset[tuple[int, int]]().union(*(waiting.commit.claims for waiting in group))
            self._take_room(sum(_on_disk(waiting) for waiting in group))
            self._link.do(lambda found: postgres_records.commit(found, opened, sequence, merged, claims))
        except StoreUnavailable as error:
            for waiting in group:
                waiting.job.refuse(StoreUnavailable(*error.args), error)
        except Exception as error:  # raised again where the job came from
            if len(group) == 1:
                group[0].job.refuse(*self._explained(group[0].commit, error))
                return
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                self._commit(half)

    def _take_room(self, size: int) -> None:
        if self._room is not None and not self._room.take(size, lambda: self._link.do(postgres_reads.size)):
            raise StoreFull(
                f"{self._link.where}: max_bytes is {self._max_bytes:,} and about {size:,} more do not fit: "
                "allow more, or sweep and VACUUM FULL, and resume; what was acknowledged is safe"
            )

    def _explained(self, commit: _Commit, error: Exception) -> tuple[Exception, BaseException | None]:
        """Return what a commit that failed with ``error`` is to raise, and its cause."""
        if not isinstance(error, (Refused, KeyError)):
            return error, error.__cause__
        opened, batch, claims = commit.opened, commit.batch, commit.claims
        try:
            return self._link.do(lambda found: postgres_records.why_refused(found, opened, batch, claims)), None
        except StoreError as failed:
            return failed, failed.__cause__

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


def _on_disk(waiting: _Waiting) -> int:
    batch = waiting.commit.batch
    records = len(batch.rows) + len(batch.cells) + len(batch.held) + len(batch.spent)
    return waiting.size + records * _RECORD_BYTES


def _groups(commits: Iterable[_Waiting]) -> Iterator[list[_Waiting]]:
    """What may be committed together: of one opening, and of bounded size."""
    by_opening: defaultdict[tuple[int, int], list[_Waiting]] = defaultdict(list)
    for waiting in commits:
        opened = waiting.commit.opened
        by_opening[opened.number, opened.info.epoch].append(waiting)
    for waiting_together in by_opening.values():
        group: list[_Waiting] = []
        size = 0
        for waiting in waiting_together:
            size += waiting.size
            if group and size > _GROUP_BYTES:
                yield group
                group, size = [], waiting.size
            group.append(waiting)
        yield group
