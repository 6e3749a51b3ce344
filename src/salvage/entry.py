"""The two records that the salvage machine works with: a task it knows, and a failure it is told of."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .classify import Failure
    from .history import History
    from .kinds import Rule

__all__ = ["Attempt", "Entry"]


@dataclass(slots=True)
class Entry:
    """Mutable: one task that failed and is not finished."""

    lane: str
    history: History
    held: bool = False
    not_before: float = -inf
    patient_until: float = inf
    token: bool = False
    out_of_tries: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt, with all that :meth:`Salvage.failed` was told about it."""

    failure: Failure
    rule: Rule
    now: float
    cooldown_until: float
    sent_at: float | None

    @property
    def began_at(self) -> float:
        """When it was sent; unknown counts as just now."""
        return self.now if self.sent_at is None else self.sent_at
