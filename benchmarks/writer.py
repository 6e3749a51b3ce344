"""Writing results: JSON for machines, Markdown for people, one line for whoever reads standard output."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .result import MetricResult, Provenance, Result, ScenarioResult

    Table = Callable[[ScenarioResult], Iterable[str]]

__all__ = ["as_json", "as_markdown", "result_line"]


def as_json(result: Result) -> str:
    """The whole result."""
    return result.model_dump_json(indent=2) + "\n"


def result_line(result: Result) -> str:
    """``BENCHMARK_RESULT=`` and the medians as JSON, in one line."""
    return "BENCHMARK_RESULT=" + json.dumps(result.summary(), separators=(",", ":"))


def as_markdown(result: Result, tables: Mapping[str, Table] | None = None, *, folder: Path | None = None) -> str:
    """One table a scenario, then where the numbers come from. ``tables`` has those that a scenario writes itself,
    ``folder`` is where the text will be, for links to pictures.
    """
    lines = ["# Benchmarks", ""]
    for scenario in result.scenarios:
        linked = scenario.model_copy(update={"pictures": _linked(scenario.pictures, folder)})
        lines.extend(_scenario(linked, (tables or {}).get(scenario.name, _rows)))
    lines.extend(_provenance(result.provenance))
    return "\n".join(lines) + "\n"


def _linked(pictures: Mapping[str, str], folder: Path | None) -> dict[str, str]:
    start = Path() if folder is None else folder
    return {name: Path(os.path.relpath(path, start)).as_posix() for name, path in pictures.items()}


def _scenario(scenario: ScenarioResult, table: Table) -> Iterator[str]:
    yield f"## {scenario.name}"
    yield ""
    yield scenario.what
    yield ""
    yield from table(scenario)
    if table is _rows:
        for name, path in scenario.pictures.items():
            yield ""
            yield f"![{name}]({path})"
    yield ""


def _rows(scenario: ScenarioResult) -> Iterator[str]:
    yield "| case | metric | median | spread | runs | to reach | |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for case in scenario.cases:
        for metric in case.metrics:
            yield "| " + " | ".join((case.name, metric.name, *_cells(metric, case.runs))) + " |"


def _cells(metric: MetricResult, runs: int) -> tuple[str, ...]:
    spread = "" if runs == 1 else f"{_number(metric.least)} to {_number(metric.most)}"
    goal = "" if metric.goal is None else str(metric.goal)
    verdict = {None: "", True: "met", False: "**missed**"}[metric.met]
    return f"{_number(metric.median)} {metric.unit}".strip(), spread, str(runs), goal, verdict


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _provenance(of: Provenance) -> Iterator[str]:
    state = {None: "", True: f" with changes ({of.diff})", False: ""}[of.dirty]
    yield "## Where the numbers come from"
    yield ""
    yield f"- code: {of.revision or 'unknown revision'}{state}"
    yield f"- machine: {of.machine}"
    yield f"- libraries: {', '.join(f'{name} {version}' for name, version in of.versions.items())}"
    yield f"- command: `python -m benchmarks {' '.join(of.argv)}` (effort {of.effort}, seed {of.seed})"
    yield f"- started: {of.started_at}"
