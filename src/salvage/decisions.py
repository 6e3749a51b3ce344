"""What the salvage machine says: decisions about one task, effects on a lane, and views.

All of it values. The engine performs them; the machine never hears whether it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from .kinds import FailureKind

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

__all__ = [
    "Block",
    "Decision",
    "Effect",
    "Fail",
    "HeldItem",
    "Hold",
    "LaneGivenUp",
    "LaneParked",
    "Park",
    "Reopened",
    "SalvageStatistics",
]


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the task, without a slot, at least until ``until`` (inf: not again in this cycle)."""

    until: float
    reason: FailureKind


@dataclass(frozen=True, slots=True)
class Fail:
    """The cell is ``Failed``. ``message`` and ``status`` are the last seen, ``attempts`` all tries."""

    kind: FailureKind
    message: str
    attempts: int
    status: int | None
    last: FailureKind


@dataclass(frozen=True, slots=True)
class Park:
    """Keep the task, without a time: its lane waits for a person."""

    lane: str
    kind: FailureKind


Decision = Hold | Fail | Park


@dataclass(frozen=True, slots=True)
class Block:
    """Let nothing out on this lane until ``until``, then exactly one request, then reopen gradually."""

    lane: str
    until: float


@dataclass(frozen=True, slots=True)
class Reopened:
    """The probe was answered: the outage that began with a :class:`Block` is over."""

    lane: str


@dataclass(frozen=True, slots=True)
class LaneParked:
    """The lane needs a person (key, quota). Said once per lane until it is unparked; say it loudly."""

    lane: str
    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class LaneGivenUp:
    """A task's patience ended while its lane was in an outage or parked: what never started need not wait
    longer.
    """

    lane: str


Effect = Block | Reopened | LaneParked | LaneGivenUp


@dataclass(frozen=True, slots=True)
class HeldItem(Generic[K]):
    """One held task, to persist. ``not_before`` is machine time, ``history`` a dict of bounded size."""

    task: K
    lane: str
    reason: FailureKind
    not_before: float
    attempts: int
    history: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SalvageStatistics:
    """Counters since the machine was made, and what it holds now."""

    held: int
    released: int
    outages: tuple[str, ...]
    parked: tuple[str, ...]
    holds: Mapping[FailureKind, int]
    failures: Mapping[FailureKind, int]
    releases: int
    recovered: int
    excused: int
    expired: int
    outages_begun: int
