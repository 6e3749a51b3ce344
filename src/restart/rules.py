"""What can be said about a failed cycle without asking anybody: the same facts, the same verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .values import TASKS_MOST, Answer, Verdict

if TYPE_CHECKING:
    from .values import Cycle, TaskId

__all__ = ["Rules", "judge_by_rules"]


@dataclass(frozen=True, slots=True)
class Rules:
    """``same_cause_cycles`` in a row without progress that end for the same cause are enough.

    A task that was in flight at the end of ``poison_cycles`` in a row is poison, unless more than ``poison_most`` were:
    then most of them only stood beside the one that is. 0 cycles: no task is, by that.
    """

    same_cause_cycles: int = 3
    poison_cycles: int = 3
    poison_most: int = 8

    def __post_init__(self) -> None:
        if self.same_cause_cycles < 1:
            raise ConfigError(f"same_cause_cycles={self.same_cause_cycles}: one is the least")
        if self.poison_cycles < 0 or self.poison_cycles == 1:
            raise ConfigError(f"poison_cycles={self.poison_cycles}: two are the least, or 0 for never")
        if not 1 <= self.poison_most <= TASKS_MOST:
            raise ConfigError(f"poison_most={self.poison_most}: from 1 to {TASKS_MOST}")


def judge_by_rules(cycle: Cycle, rules: Rules) -> Answer:
    """STOP if nothing that the run needs will serve it, or if it always ends in the same way; else set poison aside.

    Tasks that were in flight each time come first: without them it may not end in the same way again.
    """
    ledger = cycle.failure.ledger
    blocked = {one.resource: one.kind for one in ledger.blocked}
    if ledger.resources and all(resource in blocked for resource in ledger.resources):
        told = ", ".join(f"{resource} ({blocked[resource]})" for resource in ledger.resources)
        return Answer(Verdict.STOP, reason=f"no resource serves this run any more: {told}")
    suspects = _suspects(cycle, rules)
    if 0 < len(suspects) <= rules.poison_most:
        why = f"{_tasks(len(suspects))} in flight at the end of {rules.poison_cycles} cycles running"
        return Answer(Verdict.QUARANTINE, suspects, why)
    if _goes_round(cycle, rules):
        cause = cycle.failure.cause
        where = f" in {cause.where}" if cause.where else ""
        crowd = f"; {_tasks(len(suspects))} in flight each time, too many to say which is poison" * bool(suspects)
        return Answer(
            Verdict.STOP,
            reason=f"{cause.kind}{where}, {rules.same_cause_cycles} cycles running, and nothing gained{crowd}",
        )
    if ledger.poison:
        return Answer(Verdict.QUARANTINE, ledger.poison, f"{len(ledger.poison)} tasks fail wherever they run")
    return Answer(Verdict.RESTART, reason="nothing speaks against it")


def _suspects(cycle: Cycle, rules: Rules) -> tuple[TaskId, ...]:
    """The tasks that were in flight each time. None that is set aside is ever among them, so it is news."""
    if not rules.poison_cycles:
        return ()
    return tuple(one.task for one in cycle.suspects if one.cycles >= rules.poison_cycles)


def _tasks(count: int) -> str:
    return "1 task was" if count == 1 else f"{count} tasks were"


def _goes_round(cycle: Cycle, rules: Rules) -> bool:
    before = cycle.before[len(cycle.before) - (rules.same_cause_cycles - 1) :]
    if cycle.progress or len(cycle.before) < rules.same_cause_cycles - 1:
        return False
    # What was set aside may have been the cause: cycles are counted anew from there on.
    return all(
        not past.progress and not past.quarantined and past.cause.is_same(cycle.failure.cause) for past in before
    )
