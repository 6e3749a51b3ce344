"""What a cycle of a run was, what may be said about it, and what is asked of whom.

All of it is handed to analysis services and written into the store, so everything has a bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ..errors import ConfigError
from ..values import said_by, writable

__all__ = [
    "TEXT_MOST",
    "Aggregation",
    "Answer",
    "Blocked",
    "Cause",
    "Cycle",
    "Failure",
    "FailureCount",
    "LateVerdict",
    "Ledger",
    "PastCycle",
    "Suspect",
    "TaskId",
    "Verdict",
    "cause_of",
]

TEXT_MOST: Final = 500
"""Characters of a message that are kept."""

KINDS_MOST: Final = 50
TASKS_MOST: Final = 200
"""Lines of a ledger, and tasks in one, that are kept."""

IN_FLIGHT_MOST: Final = 1000
"""Tasks in flight at the end of a cycle that are kept."""


class Verdict(StrEnum):
    """What may be said about a run that ended badly."""

    RESTART = "restart"
    STOP = "stop"
    QUARANTINE = "quarantine"
    """Set the poison tasks aside, then restart."""


class Aggregation(StrEnum):
    """How many sources have to say STOP: one of them, or every one that is configured."""

    ANY = "any"
    ALL = "all"


class LateVerdict(StrEnum):
    """What becomes of a verdict about a cycle that is decided: evidence for the next decision, or nothing."""

    NEXT_CYCLE = "next_cycle"
    DROP = "drop"


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """A cell: a row by its position from 0, and a column."""

    row: int
    column: str

    def __post_init__(self) -> None:
        if self.row < 0 or not self.column:
            raise ConfigError(f"row {self.row}, column {self.column!r}: rows count from 0, columns have a name")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source says. ``tasks`` are those to be set aside, and there are some exactly if it says QUARANTINE."""

    verdict: Verdict
    tasks: tuple[TaskId, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.QUARANTINE) != bool(self.tasks):
            raise ConfigError(
                f"verdict {self.verdict.value!r} with {len(self.tasks)} tasks: tasks go with 'quarantine'"
            )
        if len(self.tasks) > TASKS_MOST:
            raise ConfigError(f"{len(self.tasks)} tasks to be set aside: {TASKS_MOST} are the most")
        object.__setattr__(self, "reason", writable(self.reason[:TEXT_MOST]))


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a cycle ended. Two causes are the same if ``kind`` and ``where`` are; ``message`` is for people."""

    kind: str
    where: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        for name in ("kind", "where", "message"):  # whatever an exception says is kept, and sent to services
            object.__setattr__(self, name, writable(getattr(self, name)))

    def is_same(self, other: Cause) -> bool:
        """Whether both have the same root."""
        return (self.kind, self.where) == (other.kind, other.where)


def cause_of(error: BaseException) -> Cause:
    """``error``, whoever raised it, as the cause of an end."""
    kind, said = type(error).__name__, said_by(error)
    return Cause(kind, message="" if said == kind else said)


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How many cells of a column failed in one way."""

    column: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """A resource that serves nobody until somebody pays or logs in: its kind is ``unauthorized``, for instance."""

    resource: str
    kind: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """A summary of what failed: the failures by column and kind, the resources, the tasks that are poison.

    ``in_flight`` are the tasks that were at work when the cycle crashed or stalled. One of a group column is named by
    the first row of its group.
    """

    failures: tuple[FailureCount, ...] = ()
    resources: tuple[str, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    poison: tuple[TaskId, ...] = ()
    in_flight: tuple[TaskId, ...] = ()


@dataclass(frozen=True, slots=True)
class Suspect:
    """A task that was in flight at the end of so many ``cycles`` in a row, each time it crashed or stalled."""

    task: TaskId
    cycles: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What one replica saw.

    ``progress`` counts the outcomes that it committed in this life itself, ``committed`` all that are on record, of all
    replicas and lives, as far as it knows: either shows that the cycle was not in vain.
    """

    cause: Cause
    progress: int = 0
    committed: int = 0
    epoch: int = 0
    ledger: Ledger = Ledger()

    def bounded(self) -> Failure:
        """The same with no more than is kept."""
        ledger = Ledger(
            tuple(sorted(self.ledger.failures, key=lambda one: -one.count)[:KINDS_MOST]),
            self.ledger.resources[:KINDS_MOST],
            self.ledger.blocked[:KINDS_MOST],
            self.ledger.poison[:TASKS_MOST],
            self.ledger.in_flight[:IN_FLIGHT_MOST],
        )
        cause = replace(self.cause, message=self.cause.message[:TEXT_MOST])
        return replace(self, cause=cause, ledger=ledger)


@dataclass(frozen=True, slots=True)
class PastCycle:
    """An earlier cycle: its number, its cause, how many outcomes it committed, how many tasks were set aside then."""

    number: int
    cause: Cause
    progress: int
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Cycle:
    """One life of a run that ended badly, as sources are told of it. ``id`` is unique over all runs and stores.

    ``progress`` counts the outcomes that were committed in it, ``before`` holds earlier cycles, the last one at last.
    ``suspects`` were in flight at its end and at that of the cycle before, or of more.
    """

    id: str
    run: str
    number: int
    failure: Failure
    progress: int = 0
    before: tuple[PastCycle, ...] = ()
    suspects: tuple[Suspect, ...] = ()
