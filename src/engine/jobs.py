"""One attempt of one task: calling the column's body and turning what it gives into results.

The body is the user's: whatever it raises becomes a classified failure, never an error of the run. Cancellation is
not a failure and passes through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.to_thread

from ..salvage.classify import Failure, message_of
from ..salvage.kinds import FailureKind
from ..storage.codec import encode
from ..values import Usage
from .values import CellResult, ColumnPlan

if TYPE_CHECKING:
    from ..admission.values import Lease
    from ..scheduler.frontier import Task
    from ..values import ResourceKey
    from .requests import OpenAttempt, Sender
    from .workers import Worker

__all__ = ["GroupResults", "Job", "ThreadRunner", "body_results", "worker_threads"]

ThreadRunner = Callable[[Callable[[], object]], Awaitable[object]]
"""Runs a blocking function elsewhere and returns what it returns. Virtual time hands in one that does not."""


def worker_threads(most: int) -> ThreadRunner:
    """Worker threads, ``most`` at once. A cancelled call is left to itself: a thread cannot be stopped."""
    limiters: list[anyio.CapacityLimiter] = []  # made on first use: a limiter belongs to the loop it was made in

    async def run(function: Callable[[], object]) -> object:
        if not limiters:
            limiters.append(anyio.CapacityLimiter(most))
        return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiters[0])

    return run


NOTHING_SPENT: Final = Usage()


class Job:
    """A task that runs: its arguments, its lease while nobody else has it, and what it has spent."""

    __slots__ = (
        "arguments",
        "attempts",
        "lease",
        "over",
        "plan",
        "rows",
        "sender",
        "started_at",
        "task",
        "timed_out",
        "unwanted",
        "usage",
        "worker",
    )

    def __init__(
        self,
        task: Task,
        plan: ColumnPlan,
        rows: Sequence[int],
        arguments: Mapping[str, object],
        lease: Lease | None,
        started_at: float,
        sender: Sender,
    ) -> None:
        self.task = task
        self.plan = plan
        self.rows = rows
        self.arguments = arguments
        self.lease = lease
        self.started_at = started_at
        self.sender = sender
        self.usage = NOTHING_SPENT
        self.timed_out = False
        self.unwanted = False
        self.attempts: set[OpenAttempt] | None = None
        self.over = False
        self.worker: Worker[Job] | None = None

    @property
    def resource(self) -> ResourceKey | None:
        """What ``lease`` is for."""
        return self.plan.resource

    def spent(self, usage: Usage) -> None:
        """Count tokens that a request of this job used."""
        self.usage = self.usage + usage

    def end_attempts(self) -> None:
        """The job is over: what its attempts still hold is given back (A2)."""
        self.over = True
        while self.attempts:
            self.attempts.pop().abandon()


def body_results(
    job: Job, returned: object, classify: Callable[[BaseException], Failure]
) -> list[CellResult] | Failure:
    """What ``returned`` means for each row of ``job``, or why it is of no use at all."""
    if job.plan.group:
        judged = returned if isinstance(returned, GroupResults) else GroupResults(job, returned, classify)
        return judged.ended()
    result = _cell(job.plan, job.rows[0], returned)
    return result.failure if result.failure is not None else [result]


# What the constructor of a named tuple calls, a frame later.
_new: Final[Callable[[type[CellResult], tuple[int, object, bytes, None]], CellResult]] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class GroupResults:
    """What a group body returned means for each row, found out row by row: there may be thousands.

    It may return an exception in the place of a value: that row fails, the others do not (T32).
    """

    __slots__ = ("_classify", "_job", "_judged", "_values", "_wrong")

    def __init__(self, job: Job, returned: object, classify: Callable[[BaseException], Failure]) -> None:
        self._job = job
        self._classify = classify
        self._judged: list[CellResult] = []
        self._values: Sequence[object] = ()
        self._wrong: Failure | None = None
        if not isinstance(returned, Sequence) or isinstance(returned, str | bytes):
            self._wrong = _bad_group(job, f"returned a {type(returned).__name__}, not a list")
            return
        try:
            self._values = tuple(cast("Sequence[object]", returned))  # not every sequence can be asked for a slice
        except Exception as error:
            kind = type(cast("object", returned)).__name__
            self._wrong = _bad_group(job, f"returned a {kind} that raised {message_of(error)}")
            return
        if len(self._values) != len(job.rows):
            self._wrong = _bad_group(job, f"returned {len(self._values)} values for {len(job.rows)} rows")

    def judge(self, most: int) -> bool:
        """Look at up to ``most`` rows more. Whether any are left."""
        if self._wrong is not None:
            return False
        done = len(self._judged)
        for row, value in zip(self._job.rows[done : done + most], self._values[done : done + most], strict=True):
            if isinstance(value, Exception):
                self._judged.append(CellResult(row, failure=self._classify(value)))
            else:
                self._judged.append(_cell(self._job.plan, row, value))
        return len(self._judged) < len(self._job.rows)

    def ended(self) -> list[CellResult] | Failure:
        """What it means for all of them."""
        self.judge(len(self._job.rows))
        return self._judged if self._wrong is None else self._wrong


def _cell(plan: ColumnPlan, row: int, value: object) -> CellResult:
    try:
        valid = plan.column.validate(value)
    except Exception as error:
        # pydantic's ValidationError, or whatever a validator of the user's raised.
        return CellResult(row, failure=_failure(FailureKind.INVALID_OUTPUT, plan, error))
    try:
        return _new(CellResult, (row, valid, encode(valid), None))
    except Exception as error:  # a TypeError of ours, or whatever a serialiser of the user's raised
        return CellResult(row, failure=_failure(FailureKind.BUG, plan, error))


def _bad_group(job: Job, what: str) -> Failure:
    return Failure(
        FailureKind.INVALID_OUTPUT, f"group column {job.plan.name} {what}: return one value per row, in order"
    )


def _failure(kind: FailureKind, plan: ColumnPlan, error: Exception) -> Failure:
    return Failure(kind, f"{plan.name}: {message_of(error)}", error_type=type(error).__name__)
