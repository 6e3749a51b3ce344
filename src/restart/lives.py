"""The lives of a run under a supervisor: how one ended, how all of it ended, how long to wait between two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .values import Cause, Ledger

if TYPE_CHECKING:
    from ..values import Rng
    from .record import Decision

__all__ = ["LifeEnd", "Supervised", "pause_s"]

_JITTER: Final = 0.25
"""Share by which each pause varies, so that replicas that failed together do not come back together."""


@dataclass(frozen=True, slots=True)
class LifeEnd:
    """How one life of a run ended: badly if there is a ``cause``.

    Without one the run has ``finished``, or its user has stopped it and it may go on another day. ``progress`` counts
    the outcomes that this life committed.
    """

    status: str
    exit_code: int = 0
    cause: Cause | None = None
    finished: bool = True
    progress: int = 0
    epoch: int = 0
    ledger: Ledger = field(default_factory=Ledger)


@dataclass(frozen=True, slots=True)
class Supervised:
    """How a run ended under a supervisor, after so many lives; ``end`` is that of the last one.

    ``decision`` is the one that told it to end, if it was told. ``status`` and ``exit_code`` say which it was.
    """

    status: str
    exit_code: int
    lives: int
    decision: Decision | None = None
    end: LifeEnd | None = None


def pause_s(fruitless: int, first_s: float, longest_s: float, rng: Rng) -> float:
    """How long to wait before the next life, after so many in a row without progress. In seconds."""
    doubled = min(longest_s, first_s * 2.0 ** min(max(fruitless - 1, 0), 60))
    return doubled * rng.uniform(1 - _JITTER, 1 + _JITTER)
