"""The results of the scenario as tables that can be read: headgate with its goals, then all clients side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .cases import CASES
from .play import HEADGATE, SHELL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..result import CaseResult, MetricResult, ScenarioResult

__all__ = ["FAIRNESS", "FAIRNESS_BY_MINUTE", "LATE", "MAKESPAN", "REACH", "REFUSED", "UTILISATION", "WASTED", "table"]

UTILISATION: Final = "utilisation"
MAKESPAN: Final = "makespan over the oracle's"
LATE: Final = "late 429s"
REFUSED: Final = "429s"
REACH: Final = "to 95 %"
FAIRNESS: Final = "Jain"
FAIRNESS_BY_MINUTE: Final = "Jain by the minute"
WASTED: Final = "wasted"

TITLES: Final = {HEADGATE: "headgate's gate", SHELL: "headgate's controller"}
WHATS: Final = {case.name: case.what for case in CASES}
LEGEND: Final = (
    "Utilisation: work done over the oracle's. Late 429s: rejected among the requests sent after two minutes (in "
    "shorter runs after a third of the time). To 95 %: seconds until the next few are as good as 95 % of the oracle's, "
    "from the start and from each change. Wasted: rejected requests in all. Means of the seeds, in brackets "
    "the worst seed; **bold** misses its goal, which is behind the slash."
)


def table(scenario: ScenarioResult) -> Iterator[str]:
    """All of it."""
    by_client: dict[str, dict[str, CaseResult]] = {}
    for result in scenario.cases:
        name, _, kind = result.name.partition(" / ")
        by_client.setdefault(kind, {})[name] = result
    yield LEGEND
    yield ""
    for kind, title in TITLES.items():
        if kind in by_client:
            yield from _own(title, by_client[kind])
    if len(by_client) > 1:
        yield from _compared(by_client)
    yield "### The cases"
    yield ""
    for name in dict.fromkeys(name for results in by_client.values() for name in results):
        yield f"- {name}: {WHATS[name]}"
    if scenario.pictures:
        yield from ("", "### Pictures of the first seed", "")
    for name, path in scenario.pictures.items():
        yield from (f"![{name}: {WHATS[name]}]({path})", "")


def _own(title: str, results: dict[str, CaseResult]) -> Iterator[str]:
    runs = next(iter(results.values())).runs
    yield f"### {title}, {runs} seed{'s' if runs > 1 else ''}"
    yield ""
    yield "| case | utilisation | late 429s, % | all 429s, % | to 95 %, s | Jain | wasted |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, result in results.items():
        found = {metric.name: metric for metric in result.metrics}
        reach = [metric for key, metric in found.items() if key.startswith(REACH)]
        cells = (
            name,
            _judged(found[UTILISATION]) if UTILISATION in found else f"makespan {_judged(found[MAKESPAN])}",
            _judged(found.get(LATE)),
            _judged(found.get(REFUSED)),
            "; ".join(_judged(metric) for metric in reach),
            "; by the minute ".join(_judged(found[name]) for name in (FAIRNESS, FAIRNESS_BY_MINUTE) if name in found),
            _judged(found.get(WASTED)),
        )
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _compared(by_client: dict[str, dict[str, CaseResult]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for results in by_client.values() for name in results))
    yield "### Side by side: utilisation (for rows: makespan over the oracle's), and all 429s"
    yield ""
    yield "| case | " + " | ".join(TITLES.get(kind, kind) for kind in by_client) + " |"
    yield "|---|" + "---:|" * len(by_client)
    for name in names:
        cells = [_pair(results.get(name)) for results in by_client.values()]
        yield "| " + " | ".join((name, *cells)) + " |"
    yield ""


def _pair(result: CaseResult | None) -> str:
    if result is None:
        return ""
    found = {metric.name: metric for metric in result.metrics}
    first = found.get(UTILISATION) or found[MAKESPAN]
    return f"{first.mean:.3f}, {_number(found[REFUSED].mean, found[REFUSED])} %"


def _judged(metric: MetricResult | None) -> str:
    """``0.994 (0.990) / 0.99``: mean, worst seed, goal; bold when missed."""
    if metric is None:
        return ""
    higher_is_better = metric.name in (UTILISATION, FAIRNESS, FAIRNESS_BY_MINUTE)
    worst = metric.least if higher_is_better else metric.most
    text = f"{_number(metric.mean, metric)} ({_number(worst, metric)})"
    if metric.goal is None:
        return text
    bound = metric.goal.at_least if metric.goal.at_most is None else metric.goal.at_most
    return f"{f'**{text}**' if metric.met is False else text} / {bound:g}"


def _number(value: float, metric: MetricResult) -> str:
    if metric.unit == "%":
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
    return f"{value:.0f}" if metric.unit in ("s", "requests") else f"{value:.3f}"
