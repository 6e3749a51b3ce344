"""What happens around a run, as values: it is begun again, or not, after a bad end; its results are delivered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .levels import Level

__all__ = [
    "DeliveryDeadLettered",
    "DeliveryPostponed",
    "DeliverySent",
    "RestartAsked",
    "RestartDecided",
    "RestartDone",
    "RestartRefused",
]


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """A life of the run ended badly, for ``reason``: it is asked whether another one follows."""

    kind: ClassVar[str] = "restart_asked"
    level: ClassVar[Level] = "warning"
    at: float
    run: str
    cycle: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RestartDecided:
    """What follows is decided, the same for all replicas: ``action``, on that ``basis``, after ``retry_in_s``; None:
    no other life, or when whoever has asked begins it.
    """

    kind: ClassVar[str] = "restart_decided"
    level: ClassVar[Level] = "info"
    at: float
    run: str
    cycle: int
    action: str
    basis: str
    retry_in_s: float | None


@dataclass(frozen=True, slots=True)
class RestartRefused:
    """No life follows, by a decision of this cycle or an earlier one, until somebody reopens the run."""

    kind: ClassVar[str] = "restart_refused"
    level: ClassVar[Level] = "error"
    at: float
    run: str
    cycle: int
    action: str
    basis: str


@dataclass(frozen=True, slots=True)
class RestartDone:
    """Another life begins: ``lives`` with this one, under this supervisor."""

    kind: ClassVar[str] = "restart_done"
    level: ClassVar[Level] = "info"
    at: float
    run: str
    cycle: int
    lives: int


@dataclass(frozen=True, slots=True)
class DeliverySent:
    """The receiver has it, and that is on record. ``run`` is empty for what was added without one."""

    kind: ClassVar[str] = "delivery_sent"
    level: ClassVar[Level] = "debug"
    at: float
    run: str
    key: str
    destination: str
    attempts: int


@dataclass(frozen=True, slots=True)
class DeliveryPostponed:
    """An attempt did not reach the receiver, or it wants it later: it is tried again after ``retry_in_s``."""

    kind: ClassVar[str] = "delivery_postponed"
    level: ClassVar[Level] = "warning"
    at: float
    run: str
    key: str
    destination: str
    attempts: int
    message: str
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class DeliveryDeadLettered:
    """It is sent no more, and was not taken: ``rejected`` by the receiver, damaged here, or ``gone`` there."""

    kind: ClassVar[str] = "delivery_dead_lettered"
    level: ClassVar[Level] = "error"
    at: float
    run: str
    key: str
    destination: str
    outcome: str
    message: str
