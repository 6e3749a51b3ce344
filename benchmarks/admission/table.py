"""The results of the scenario as tables that can be read: one for headgate with its goals, one that compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cases import CASES
from .play import HEADGATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..result import CaseResult, MetricResult, ScenarioResult

__all__ = ["table"]

WHATS = {case.name: case.what for case in CASES}


def table(scenario: ScenarioResult) -> Iterator[str]:
    """All of it. Numbers are means of the seeds, in brackets the worst seed."""
    by_client: dict[str, dict[str, CaseResult]] = {}
    for result in scenario.cases:
        name, _, kind = result.name.partition(" / ")
        by_client.setdefault(kind, {})[name] = result
    yield "Mean of the seeds, in brackets the worst seed; **bold** misses its goal."
    yield ""
    for kind, results in by_client.items():
        if kind.startswith(HEADGATE):
            yield from _own(kind, results)
    if len(by_client) > 1:
        yield from _compared(by_client)
    yield "The cases:"
    yield ""
    for name in dict.fromkeys(name for results in by_client.values() for name in results):
        yield f"- {name}: {WHATS[name]}"


def _own(kind: str, results: dict[str, CaseResult]) -> Iterator[str]:
    yield f"### {kind}"
    yield ""
    yield "| case | utilisation | 429s after 120 s | 429s | to 95 % | Jain | rejected |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, result in results.items():
        found = {metric.name: metric for metric in result.metrics}
        reach = [metric for key, metric in found.items() if key.startswith("to 95 %")]
        cells = (
            name,
            _goal(found.get("utilisation")) or _goal(found.get("makespan"), "makespan "),
            _goal(found.get("429s after 120 s")),
            _mean(found.get("429s")),
            "; ".join(_goal(metric) for metric in reach),
            _goal(found.get("Jain")),
            _mean(found.get("rejected")),
        )
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _compared(by_client: dict[str, dict[str, CaseResult]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for results in by_client.values() for name in results))
    yield "### Compared: utilisation, and 429s after 120 s"
    yield ""
    yield "| case | " + " | ".join(by_client) + " |"
    yield "|---|" + "---:|" * len(by_client)
    for name in names:
        cells = [_pair(results.get(name)) for results in by_client.values()]
        yield "| " + " | ".join((name, *cells)) + " |"
    yield ""


def _pair(result: CaseResult | None) -> str:
    if result is None:
        return ""
    found = {metric.name: metric for metric in result.metrics}
    if "makespan" in found:
        return f"makespan {found['makespan'].mean:.3f}, {found['429s'].mean:.2g} %"
    late = found["429s after 120 s"].mean
    return f"{found['utilisation'].mean:.3f}, {late:.2g} %"


def _goal(metric: MetricResult | None, label: str = "") -> str:
    """``0.994 (0.990) of >= 0.99``: mean, worst seed, goal; bold when missed."""
    if metric is None:
        return ""
    text = label + _mean(metric)
    if metric.goal is None:
        return text
    goal = f"{metric.goal} {_unit(metric)}".strip()
    return f"**{text}**, goal {goal}" if metric.met is False else f"{text}, goal {goal}"


def _mean(metric: MetricResult | None) -> str:
    if metric is None:
        return ""
    higher_is_better = metric.name in ("utilisation", "Jain")
    worst = metric.least if higher_is_better else metric.most
    return f"{_number(metric.mean, metric)} ({_number(worst, metric)}) {_unit(metric)}".strip()


def _unit(metric: MetricResult) -> str:
    return metric.unit if metric.unit in ("%", "s") else ""


def _number(value: float, metric: MetricResult) -> str:
    if metric.unit == "%":
        return f"{value:.3f}" if value < 1 else f"{value:.2f}"
    return f"{value:.0f}" if metric.unit in ("s", "requests") else f"{value:.4f}"
