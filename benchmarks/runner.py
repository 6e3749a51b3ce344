"""Running scenarios: every case several times, the numbers of each metric together."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from .result import CaseResult, MetricResult, ScenarioResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .measure import Case, Plan, Sample, Scenario

__all__ = ["run_scenario"]


def _silent(_: str) -> None:
    pass


def run_scenario(scenario: Scenario, plan: Plan, *, tell: Callable[[str], None] = _silent) -> ScenarioResult:
    """Measure every case of ``scenario`` that ``plan`` asks for; ``tell`` hears of each as it is done."""
    began = time.perf_counter()
    cases: list[CaseResult] = []
    for case in scenario.cases(plan):
        if not plan.wants(case.name):
            continue
        result = _run_case(case, case.runs or plan.runs)
        cases.append(result)
        tell(f"{scenario.name} / {case.name}: " + ", ".join(f"{m.name} {m.median:.4g}{m.unit}" for m in result.metrics))
    drawn: Mapping[str, Path] = {}
    if scenario.draw is not None and plan.pictures is not None:
        drawn = scenario.draw(plan)
    return ScenarioResult(
        name=scenario.name,
        what=scenario.what,
        seconds=time.perf_counter() - began,
        cases=tuple(cases),
        pictures={name: path.as_posix() for name, path in drawn.items()},
    )


def _run_case(case: Case, runs: int) -> CaseResult:
    samples: dict[str, list[Sample]] = {}
    for _ in range(runs):
        for sample in case.measure():
            samples.setdefault(sample.name, []).append(sample)
    metrics = [
        MetricResult.of(name, taken[0].unit, [sample.value for sample in taken], taken[0].goal, taken[0].judge)
        for name, taken in samples.items()
    ]
    for metric in metrics:
        if len(metric.values) != runs:
            sys.exit(f"{case.name}: {metric.name} was measured {len(metric.values)} times in {runs} runs")
    return CaseResult(name=case.name, runs=runs, metrics=tuple(metrics))
