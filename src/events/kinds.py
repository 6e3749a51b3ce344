"""What happens in a run, as values: every kind of event, typed, frozen, documented here and nowhere else.

A leaf: it imports nothing of headgate, and decides nothing. Who builds events and when is the engine's business
(:mod:`headgate.engine.telling`); nobody does while nobody listens. Fields that stand in several kinds mean the same in
all of them: :data:`~headgate.events.FIELDS`. The page ``architecture/events.md`` is generated from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, get_args

from .around import (
    DeliveryDeadLettered,
    DeliveryPostponed,
    DeliverySent,
    RestartAsked,
    RestartDecided,
    RestartDone,
    RestartRefused,
)

if TYPE_CHECKING:
    from .levels import Level

__all__ = [
    "EVENTS",
    "BatchCommitted",
    "CellEnded",
    "ColumnStopped",
    "Event",
    "EventSink",
    "EventsDropped",
    "GroupEnded",
    "PaceChanged",
    "RequestEnded",
    "RequestStarted",
    "ResourceBlocked",
    "ResourceGivenUp",
    "ResourceParked",
    "ResourceReopened",
    "RowFinished",
    "RowOpened",
    "RunEnded",
    "RunStarted",
    "RunStopping",
    "StoreRetried",
    "TaskHeld",
    "TaskStarted",
]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run begins, or goes on: then its epoch is 2 or more."""

    kind: ClassVar[str] = "run_started"
    level: ClassVar[Level] = "info"
    at: float
    run: str
    epoch: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunStopping:
    """Nothing more is started; what is in flight has its grace time."""

    kind: ClassVar[str] = "run_stopping"
    level: ClassVar[Level] = "info"
    at: float
    run: str
    status: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over: the one terminal event of a run, and its last. ``error`` says what broke it, or is empty."""

    kind: ClassVar[str] = "run_ended"
    level: ClassVar[Level] = "info"
    at: float
    run: str
    status: str
    seconds: float
    accepted: int
    done: int
    failed: int
    held: int
    skipped: int
    error: str


@dataclass(frozen=True, slots=True)
class RowOpened:
    """A row came in, and has cells that are not done yet."""

    kind: ClassVar[str] = "row_opened"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    row: int
    row_id: str
    group: int


@dataclass(frozen=True, slots=True)
class RowFinished:
    """Every cell of a row has its outcome, and all of it is committed; ``restored``: an earlier run had finished it."""

    kind: ClassVar[str] = "row_finished"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    row: int
    row_id: str
    status: str
    restored: bool


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """The body of a column is called: for one row, or for the ``rows`` of a group, then ``row`` is None."""

    kind: ClassVar[str] = "task_started"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    column: str
    row: int | None
    group: int | None
    rows: int
    resource: str | None


@dataclass(frozen=True, slots=True)
class TaskHeld:
    """An attempt failed and the task comes again, after ``retry_in_s``; None: when its resource does."""

    kind: ClassVar[str] = "task_held"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    column: str
    row: int | None
    group: int | None
    reason: str
    message: str
    attempts: int
    retry_in_s: float | None


@dataclass(frozen=True, slots=True)
class CellEnded:
    """The terminal event of a cell, once its outcome is committed, or when the run ends and leaves it for a later one.

    The cells of a group task have one each; what its request used stands with the first.
    """

    kind: ClassVar[str] = "cell_ended"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    column: str
    row: int
    outcome: str
    reason: str
    message: str
    attempts: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class GroupEnded:
    """The terminal event of a group task: it ended ``done`` or ``failed``, lost its last row (``skipped``), or is left
    for a later run (``held``). ``rows`` is how many it was about.
    """

    kind: ClassVar[str] = "group_ended"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    column: str
    group: int
    outcome: str
    rows: int


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """One outbound attempt has its lease, after ``waited_s`` in the local queue. Those of attached clients too."""

    kind: ClassVar[str] = "request_started"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    column: str
    row: int | None
    group: int | None
    resource: str
    lease: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The attempt gave its lease back after ``seconds``, with what became of it."""

    kind: ClassVar[str] = "request_ended"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    column: str
    row: int | None
    group: int | None
    resource: str
    lease: int
    outcome: str
    seconds: float
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class ResourceBlocked:
    """Nothing is started on a resource for ``seconds``, since it fails too often; None: for good."""

    kind: ClassVar[str] = "resource_blocked"
    level: ClassVar[Level] = "warning"
    at: float
    run: str
    resource: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class ResourceReopened:
    """A resource works again."""

    kind: ClassVar[str] = "resource_reopened"
    level: ClassVar[Level] = "info"
    at: float
    run: str
    resource: str


@dataclass(frozen=True, slots=True)
class ResourceParked:
    """Somebody has to act (a key, a quota) before a resource works again; its tasks are held."""

    kind: ClassVar[str] = "resource_parked"
    level: ClassVar[Level] = "error"
    at: float
    run: str
    resource: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ResourceGivenUp:
    """Nothing on a resource worked for as long as a task had patience; its tasks are held."""

    kind: ClassVar[str] = "resource_given_up"
    level: ClassVar[Level] = "error"
    at: float
    run: str
    resource: str
    message: str


@dataclass(frozen=True, slots=True)
class ColumnStopped:
    """Nearly every row of a column fails for good; nothing more of it is tried."""

    kind: ClassVar[str] = "column_stopped"
    level: ClassVar[Level] = "error"
    at: float
    run: str
    column: str
    message: str


@dataclass(frozen=True, slots=True)
class PaceChanged:
    """Another thing sets the speed of a resource than before. Looked at now and then, not at each change."""

    kind: ClassVar[str] = "pace_changed"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    resource: str
    pace: str
    limit: float | None
    in_flight: int


@dataclass(frozen=True, slots=True)
class BatchCommitted:
    """The store acknowledged a commit of ``records`` after ``seconds``."""

    kind: ClassVar[str] = "batch_committed"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StoreRetried:
    """The store is away or full for the moment; it is asked again after ``retry_in_s``."""

    kind: ClassVar[str] = "store_retried"
    level: ClassVar[Level] = "warning"
    at: float
    run: str
    message: str
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class EventsDropped:
    """So many events before this one are missing: whoever takes them was slower than the run. ``run`` is empty."""

    kind: ClassVar[str] = "events_dropped"
    level: ClassVar[Level] = "warning"
    at: float
    run: str
    count: int


Event = (
    RunStarted
    | RunStopping
    | RunEnded
    | RowOpened
    | RowFinished
    | TaskStarted
    | TaskHeld
    | CellEnded
    | GroupEnded
    | RequestStarted
    | RequestEnded
    | ResourceBlocked
    | ResourceReopened
    | ResourceParked
    | ResourceGivenUp
    | ColumnStopped
    | PaceChanged
    | BatchCommitted
    | StoreRetried
    | RestartAsked
    | RestartDecided
    | RestartRefused
    | RestartDone
    | DeliverySent
    | DeliveryPostponed
    | DeliveryDeadLettered
    | EventsDropped
)
"""Everything that is said of a run."""

EVENTS: Final[tuple[type[Event], ...]] = get_args(Event)
"""The kinds, in the order of a run."""

EventSink = Callable[[Event], object]
"""Takes events, on the loop of the run, as they happen: it must not block. What it raises ends its own part only."""
