"""What a replica's machine asks its shell to do, and the numbers that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .values import Aggregation, LateVerdict

if TYPE_CHECKING:
    from .record import RunRecord
    from .values import Cycle

__all__ = ["Ask", "CoreOptions", "Effect", "Look", "SourceFacts", "Start", "Swap"]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A source by its name. ``elsewhere``: its analysis is one for all replicas, so each of them may trigger it."""

    name: str
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """See :class:`~headgate.restart.config.RestartConfig`. Times in seconds."""

    timeout_s: float = 60.0
    recovery_timeout_s: float = 300.0
    lease_s: float = 10.0
    poll_s: float = 0.5
    budget: int = 5
    aggregation: Aggregation = Aggregation.ANY
    late_verdict: LateVerdict = LateVerdict.NEXT_CYCLE
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """Read the record, and tell ``seen`` or ``store_failed``."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Write ``record`` if the version is still ``after``, and tell ``swapped`` or ``store_failed``."""

    after: int
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Start:
    """Let ``source`` begin with the analysis of ``cycle``. Nobody waits for it."""

    source: str
    cycle: Cycle


@dataclass(frozen=True, slots=True)
class Ask:
    """Read ``source`` until it has a verdict on ``cycle``, and tell ``answered`` or ``not_answered``."""

    source: str
    cycle: Cycle


Effect = Look | Swap | Start | Ask
