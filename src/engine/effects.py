"""What a run's core wants performed: its own effects beside those of salvage, one closed union."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..salvage.decisions import Effect as SalvageEffect

if TYPE_CHECKING:
    from ..scheduler.tasks import Task

__all__ = ["Abandoned", "Cancel", "ColumnHalted", "CoreEffect"]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop ``task`` wherever it is: its result cannot matter any more."""

    task: Task


@dataclass(frozen=True, slots=True)
class ColumnHalted:
    """Nearly every row of ``column`` fails for good: nothing more of it is tried. Said once, to be said loudly."""

    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Nothing on ``lane`` worked for as long as a task had patience: whatever waits there is left for a later run.

    ``reason`` says how the task failed whose patience ended first.
    """

    lane: str
    reason: str


CoreEffect = Cancel | ColumnHalted | Abandoned | SalvageEffect
