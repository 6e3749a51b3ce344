"""Two results side by side: what got better, what got worse, and which differences mean anything.

A metric is judged by its quotient new over old, where it is known which way it is to go. What depends on the machine's
mood (absolute CPU, wall time) is judged by how it changed in relation to its baseline of the same minute; without one
it is shown and not judged. Pure: reads no file, measures nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from .result import FORMAT, Better, Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .result import CaseResult, MetricResult

__all__ = ["Comparison", "NotComparable", "Pair", "Verdict", "as_table", "compare", "read_result", "share_scenarios"]


class NotComparable(Exception):
    """There is nothing to compare with; the message says why."""


class Verdict(StrEnum):
    """What a pair says. UNJUDGED: no way is better, or nothing but the machine may have changed."""

    BETTER = "better"
    SAME = "same"
    WORSE = "worse"
    UNJUDGED = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """One metric of one case in both results. ``ratio`` is new over old, of the quotients by ``baseline`` if named."""

    scenario: str
    case: str
    metric: str
    unit: str
    old: float
    new: float
    ratio: float
    better: Better
    baseline: str | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs, how many cases only one of the two has, and whether they were measured on the same machine."""

    pairs: tuple[Pair, ...]
    only_old: int
    only_new: int
    same_machine: bool
    tolerance: float

    @property
    def worse(self) -> tuple[Pair, ...]:
        """What got worse by more than the tolerance."""
        return tuple(pair for pair in self.pairs if pair.verdict is Verdict.WORSE)


class _Header(BaseModel):
    """What a file of any format has."""

    format: int


def read_result(text: str, name: str) -> Result:
    """The result that ``text`` holds. Raises NotComparable that names the file and what is wrong with it."""
    try:
        found = _Header.model_validate_json(text).format
    except ValidationError as error:
        raise NotComparable(f"{name} is no result of these benchmarks") from error
    if found != FORMAT:
        raise NotComparable(
            f"{name} has format {found}, these benchmarks write format {FORMAT}: measure it again with --json"
        )
    try:
        return Result.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotComparable(f"{name} is damaged: {where}: {first['msg']}") from error


def share_scenarios(old: Result, names: Iterable[str]) -> None:
    """Make sure that ``names`` can be compared with ``old`` before minutes are spent on them. Raises NotComparable."""
    there = {scenario.name for scenario in old.scenarios}
    wanted = set(names)
    if not there & wanted:
        raise NotComparable(
            f"nothing to compare: the file has {', '.join(sorted(there)) or 'no scenario'}, "
            f"to be measured is {', '.join(sorted(wanted))}"
        )


def compare(old: Result, new: Result, *, tolerance: float) -> Comparison:
    """Compare every metric that both have. Raises NotComparable if they have no case in common."""
    before, after = _cases(old), _cases(new)
    common = [key for key in after if key in before]
    if not common:
        raise NotComparable("the two results have no case in common: other scenarios, other sizes, or another effort")
    pairs = [pair for key in common for pair in _pairs(key, before[key], after[key], tolerance)]
    return Comparison(
        tuple(pairs),
        only_old=len(before) - len(common),
        only_new=len(after) - len(common),
        same_machine=old.provenance.machine == new.provenance.machine,
        tolerance=tolerance,
    )


def as_table(found: Comparison) -> str:
    """Markdown: every pair, what got worse in bold, and what was left out."""
    lines = ["| scenario / case | metric | old | new | new / old | |", "|---|---|---:|---:|---:|---|"]
    lines.extend(_line(pair) for pair in found.pairs)
    lines.append("")
    lines.append(
        f"{len(found.worse)} of {sum(pair.verdict is not Verdict.UNJUDGED for pair in found.pairs)} judged metrics are "
        f"worse by more than {found.tolerance:.0%}."
    )
    if found.only_old or found.only_new:
        lines.append(f"Not compared: {found.only_old} cases only in the old result, {found.only_new} only in the new.")
    if not found.same_machine:
        lines.append("The two were measured on different machines: only what is judged by a baseline means anything.")
    return "\n".join(lines) + "\n"


def _cases(result: Result) -> dict[tuple[str, str], CaseResult]:
    return {(scenario.name, case.name): case for scenario in result.scenarios for case in scenario.cases}


def _pairs(key: tuple[str, str], old: CaseResult, new: CaseResult, tolerance: float) -> Iterator[Pair]:
    before, after = ({metric.name: metric for metric in case.metrics} for case in (old, new))
    for name, metric in after.items():
        if name in before:
            yield _pair(key, metric, before, after, tolerance)


def _pair(
    key: tuple[str, str],
    metric: MetricResult,
    before: dict[str, MetricResult],
    after: dict[str, MetricResult],
    tolerance: float,
) -> Pair:
    old, new = before[metric.name].median, metric.median
    ratio, baseline = _quotient(new, old), metric.baseline
    if baseline is not None and baseline in before and baseline in after:
        ratio = _quotient(ratio, _quotient(after[baseline].median, before[baseline].median))
    else:
        baseline = None
    judged = metric.better is not Better.NEITHER and (baseline is not None or not metric.noisy)
    verdict = _verdict(ratio, metric.better, tolerance) if judged else Verdict.UNJUDGED
    return Pair(*key, metric.name, metric.unit, old, new, ratio, metric.better, baseline, verdict)


def _quotient(new: float, old: float) -> float:
    if new == old:
        return 1.0
    return new / old if old else inf if new > 0 else -inf


def _verdict(ratio: float, better: Better, tolerance: float) -> Verdict:
    low, high = 1.0 / (1.0 + tolerance), 1.0 + tolerance
    if low <= ratio <= high:
        return Verdict.SAME
    return Verdict.BETTER if (ratio < low) == (better is Better.LOWER) else Verdict.WORSE


def _line(pair: Pair) -> str:
    against = "" if pair.baseline is None else f" (by {pair.baseline})"
    ratio = f"{pair.ratio:.3f}{against}" if isfinite(pair.ratio) else "from nothing"
    verdict = f"**{pair.verdict}**" if pair.verdict is Verdict.WORSE else pair.verdict.value
    values = f"{pair.old:.4g} {pair.unit}".strip(), f"{pair.new:.4g} {pair.unit}".strip()
    return f"| {pair.scenario} / {pair.case} | {pair.metric} | {values[0]} | {values[1]} | {ratio} | {verdict} |"
