"""What several sources amount to. The order in which they answered does not count (R4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .record import Basis, Heard, SourceAnswer
from .values import Aggregation, TaskId, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Judgement", "judge"]

_DEFAULTS = ((Heard.NOTHING, Basis.TIMEOUT), (Heard.INVALID, Basis.INVALID), (Heard.UNREACHABLE, Basis.UNREACHABLE))


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, what it rests on, and what each source had to do with it, in the order of their configuration."""

    verdict: Verdict
    basis: Basis
    tasks: tuple[TaskId, ...]
    answers: tuple[SourceAnswer, ...]


def judge(
    aggregation: Aggregation,
    cycle: int,
    sources: Sequence[str],
    heard: Mapping[str, SourceAnswer],
    evidence: Sequence[SourceAnswer],
    *,
    over: bool,
) -> Judgement | None:
    """What ``sources`` amount to; None if it is worth waiting for more. ``over``: there is no more time.

    ``heard`` has how each one answered that did, ``evidence`` late verdicts on earlier cycles. Each stands in for its
    source if that is slow again: not if it says something else now, and not if it cannot be reached or says what makes
    no sense, because such a one never stops a run.
    """
    stops = [name for name in sources if name in heard and heard[name].verdict is Verdict.STOP]
    early = aggregation is Aggregation.ANY and bool(stops)
    if not (early or over or all(name in heard for name in sources)):
        return None
    missing = Heard.NOT_AWAITED if early and not over else Heard.NOTHING
    answers = [heard.get(name) or SourceAnswer(name, missing, cycle) for name in sources]
    return _sum_up(aggregation, cycle, answers if early else _completed(answers, evidence))


def _completed(answers: list[SourceAnswer], evidence: Sequence[SourceAnswer]) -> list[SourceAnswer]:
    """Where a source says nothing, what it said late."""
    late = {one.source: replace(one, heard=Heard.LATE) for one in evidence}
    return [late.get(one.source, one) if one.heard is Heard.NOTHING else one for one in answers]


def _sum_up(aggregation: Aggregation, cycle: int, answers: list[SourceAnswer]) -> Judgement:
    stops = [one for one in answers if one.verdict is Verdict.STOP]
    enough = stops and (aggregation is Aggregation.ANY or len(stops) == len(answers))
    poisons = [one for one in answers if one.verdict is Verdict.QUARANTINE]
    if enough:
        return Judgement(Verdict.STOP, _basis_of(stops, aggregation), (), tuple(answers))
    if poisons:
        tasks = tuple(sorted({task for one in poisons for task in one.tasks}))
        return Judgement(Verdict.QUARANTINE, _basis_of(poisons, Aggregation.ANY), tasks, tuple(answers))
    return Judgement(Verdict.RESTART, _default_basis(answers), (), tuple(answers))


def _basis_of(needed: list[SourceAnswer], aggregation: Aggregation) -> Basis:
    """Whether it would have come out so without late verdicts."""
    late = [one.heard is Heard.LATE for one in needed]
    return Basis.EVIDENCE if (any(late) if aggregation is Aggregation.ALL else all(late)) else Basis.ANSWERS


def _default_basis(answers: list[SourceAnswer]) -> Basis:
    if not answers:
        return Basis.NO_SOURCES
    kinds = {one.heard for one in answers}
    return next((basis for kind, basis in _DEFAULTS if kind in kinds), Basis.ANSWERS)
