"""All that is on record about a run's restarts, as text for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .record import Action, Heard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .record import Decision, Late, RunRecord, SourceAnswer, Trigger
    from .values import TaskId

__all__ = ["render"]

_TASKS_SHOWN = 5


def render(record: RunRecord) -> str:
    """Who saw what fail when, who said what, what was decided on what basis, what came late. Times are UTC."""
    lines = [f"run {record.run}: {_state(record)}"]
    for decision in record.decisions:
        lines.extend(_decision_lines(decision))
        lines.extend(_late_line(late) for late in record.late if late.answer.cycle == decision.cycle)
    if record.triggers:
        lines.append(f"cycle {record.cycle}: has failed, and is being decided")
        lines.extend(_trigger_line(trigger) for trigger in record.triggers)
        if record.lease is not None:
            lines.append(f"  led by {record.lease.holder}")
    if record.quarantined:
        lines.append(f"set aside: {_tasks(record.quarantined)}")
    if record.suspects:
        in_a_row = [one.task for one in record.suspects if one.cycles > 1]
        lines.append(f"in flight at the end of the last cycle: {_tasks([one.task for one in record.suspects])}")
        if in_a_row:
            lines.append(f"  also at the end of the one before: {_tasks(in_a_row)}")
    return "\n".join(lines)


def _state(record: RunRecord) -> str:
    if record.finished:
        return f"finished ({record.finished}) in cycle {record.cycle}"
    if record.closed:
        return f"closed by the decision on cycle {record.cycle}: {record.decisions[-1].action.value}"
    fruitless = f", {record.fruitless} without progress before it" if record.fruitless else ""
    return f"in cycle {record.cycle}{fruitless}"


def _decision_lines(decision: Decision) -> Iterator[str]:
    would_be = decision.would_be
    dry = f" (dry run: would be {would_be.value})" if would_be else ""
    yield f"cycle {decision.cycle}: {decision.action.value}{dry}, on the basis of {decision.basis.value}"
    if decision.cause is not None:
        cause = decision.cause
        where = f" in {_plain(cause.where)}" if cause.where else ""
        message = f": {_plain(cause.message)}" if cause.message else ""
        yield f"  ended by {_plain(cause.kind)}{where}{message}"
    without = f", {decision.fruitless} cycles without" if decision.fruitless else ""
    yield f"  progress: {decision.progress} outcomes{without}"
    if decision.tasks:
        yield f"  {'sets aside' if decision.action is Action.QUARANTINE else 'names'}: {_tasks(decision.tasks)}"
    yield from map(_trigger_line, decision.triggers)
    yield from map(_answer_line, decision.answers)
    yield f"  decided by {decision.replica} at {_time(decision.at)}"


def _trigger_line(trigger: Trigger) -> str:
    return f"  triggered by {trigger.replica} at {_time(trigger.at)}"


def _answer_line(answer: SourceAnswer) -> str:
    if answer.verdict is None:
        return f"  {answer.source}: {answer.heard.value}{_reason(answer)}"
    late = f", said late of cycle {answer.cycle}" if answer.heard is Heard.LATE else ""
    tasks = f" {len(answer.tasks)} tasks" if answer.tasks else ""
    return f"  {answer.source}: {answer.verdict.value}{tasks}{late}, at {_time(answer.at)}{_reason(answer)}"


def _late_line(late: Late) -> str:
    used = "dropped" if late.evidence_for is None else f"evidence for cycle {late.evidence_for}"
    verdict = late.answer.verdict.value if late.answer.verdict else "nothing"
    return f"  late: {late.answer.source}: {verdict} at {_time(late.answer.at)}, {used}{_reason(late.answer)}"


def _reason(answer: SourceAnswer) -> str:
    return f": {_plain(answer.reason)}" if answer.reason else ""


def _plain(said: str) -> str:
    """One line of what somebody else said, without what a terminal would obey."""
    return " ".join("".join(one if one.isprintable() else " " for one in said).split())


def _tasks(tasks: Sequence[TaskId]) -> str:
    shown = ", ".join(f"row {task.row} of {_plain(task.column)}" for task in tasks[:_TASKS_SHOWN])
    more = len(tasks) - _TASKS_SHOWN
    return shown + (f" and {more} more" if more > 0 else "")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
