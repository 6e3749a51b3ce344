"""What can be said about a failed cycle without asking anybody: the same facts, the same verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .values import Answer, Verdict

if TYPE_CHECKING:
    from .values import Cycle

__all__ = ["Rules", "judge_by_rules"]


@dataclass(frozen=True, slots=True)
class Rules:
    """``same_cause_cycles`` in a row without progress that end for the same cause are enough."""

    same_cause_cycles: int = 3

    def __post_init__(self) -> None:
        if self.same_cause_cycles < 1:
            raise ConfigError(f"same_cause_cycles={self.same_cause_cycles}: one is the least")


def judge_by_rules(cycle: Cycle, rules: Rules) -> Answer:
    """STOP if nothing that the run needs will serve it, or if it always ends in the same way; else set poison aside."""
    ledger = cycle.failure.ledger
    blocked = {one.resource: one.kind for one in ledger.blocked}
    if ledger.resources and all(resource in blocked for resource in ledger.resources):
        told = ", ".join(f"{resource} ({blocked[resource]})" for resource in ledger.resources)
        return Answer(Verdict.STOP, reason=f"no resource serves this run any more: {told}")
    if _goes_round(cycle, rules):
        cause = cycle.failure.cause
        where = f" in {cause.where}" if cause.where else ""
        return Answer(
            Verdict.STOP, reason=f"{cause.kind}{where}, {rules.same_cause_cycles} cycles running, and nothing gained"
        )
    if ledger.poison:
        return Answer(Verdict.QUARANTINE, ledger.poison, f"{len(ledger.poison)} tasks fail wherever they run")
    return Answer(Verdict.RESTART, reason="nothing speaks against it")


def _goes_round(cycle: Cycle, rules: Rules) -> bool:
    before = cycle.before[len(cycle.before) - (rules.same_cause_cycles - 1) :]
    if cycle.progress or len(cycle.before) < rules.same_cause_cycles - 1:
        return False
    return all(not past.progress and past.cause.is_same(cycle.failure.cause) for past in before)
