"""Running scenarios: every case several times, the numbers of each metric together."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from .result import CaseResult, MetricResult, ScenarioResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .measure import Case, Plan, Sample, Scenario

__all__ = ["run_scenario"]


def _silent(_: str) -> None:
    pass


def run_scenario(scenario: Scenario, plan: Plan, *, tell: Callable[[str], None] = _silent) -> ScenarioResult:
    """Measure every case of ``scenario`` that ``plan`` asks for; ``tell`` hears of each as it is done."""
    began = time.perf_counter()
    cases: list[CaseResult] = []
    wanted = (case for case in scenario.cases(plan) if plan.wants(case.name))
    for lot in [tuple(wanted)] if scenario.in_turns else ((case,) for case in wanted):
        for result in _run_cases(lot, plan.runs):
            cases.append(result)
            said = ", ".join(f"{m.name} {m.median:.4g}{m.unit}" for m in result.metrics)
            tell(f"{scenario.name} / {result.name}: {said}")
    found = ScenarioResult(
        name=scenario.name, what=scenario.what, seconds=time.perf_counter() - began, cases=tuple(cases)
    )
    if scenario.draw is None or plan.pictures is None:
        return found
    drawn = scenario.draw(plan, found)
    return found.model_copy(update={"pictures": {name: path.as_posix() for name, path in drawn.items()}})


def _run_cases(cases: Sequence[Case], most: int) -> Iterator[CaseResult]:
    """Run each once, then those again that are to be run more often, and so on."""
    samples: list[dict[str, list[Sample]]] = [{} for _ in cases]
    runs = [case.runs or most for case in cases]
    for turn in range(1, max(runs, default=0) + 1):
        for case, wanted, taken in zip(cases, runs, samples, strict=True):
            if turn <= wanted:
                for sample in case.measure():
                    taken.setdefault(sample.name, []).append(sample)
    for case, wanted, taken in zip(cases, runs, samples, strict=True):
        yield _result(case, wanted, taken)


def _result(case: Case, runs: int, samples: Mapping[str, list[Sample]]) -> CaseResult:
    metrics = [_metric(name, taken) for name, taken in samples.items()]
    for metric in metrics:
        if len(metric.values) != runs:
            sys.exit(f"{case.name}: {metric.name} was measured {len(metric.values)} times in {runs} runs")
    return CaseResult(name=case.name, runs=runs, metrics=tuple(metrics))


def _metric(name: str, taken: list[Sample]) -> MetricResult:
    first = taken[0]
    return MetricResult.of(
        name,
        first.unit,
        [sample.value for sample in taken],
        first.goal,
        first.judge,
        better=first.better,
        noisy=first.noisy,
        baseline=first.baseline,
    )
