"""What the engine itself costs: cells whose body does nothing.

CPU time of the whole process per cell, with 64 requests in flight. Beside it, in the same minute, what asyncio, anyio
and aiometer take for calls that do nothing: see ``benchmarks/baselines.py``. Each runs for a short while before it
is measured: what a process does once (import what is needed late, specialise what runs often: some 20 ms) is no cost of
a cell.

On disk it is seen too how long the loop stalls: what the process itself keeps a timer waiting, in any of its threads,
at most. Garbage collection is told apart, and so is what the machine does, beside how late a timer is in a loop that
idles.
"""

from __future__ import annotations

import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

import headgate

from ..baselines import ASYNCIO, BASELINES, baseline_us
from ..measure import Better, Case, Effort, Plan, Sample, Scenario, at_most, measured
from ..turns import Turns, idle_late_s, run_watched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..result import Goal, MetricResult, ScenarioResult

__all__ = ["SCENARIO"]

IN_FLIGHT = 64
MODELS = 4
WARM_UP = 1_000
"""Cells, and calls of the others, that run before those that are measured."""
CELLS_MIN = 10_000
"""A smaller run is repeated until there were so many: what takes only some milliseconds cannot be measured here."""

IN_MEMORY_US = 60.0
DURABLE_US = 150.0
STALL_MS = 20.0

STALL, COLLECTED = "longest stall of the loop", "most garbage collection in a turn"
LATE, IDLE = "latest beat of a timer", "latest beat while the loop idles"

SHAPE = re.compile(r"(\d+) (model|local) columns, (\d+) cells, (memory|SQLite)")
"""What the names of the cases say."""


def cases(plan: Plan) -> Iterator[Case]:
    """1, 4, 16 and 64 columns, on models and local, in memory and on disk, at several sizes."""
    effort, seed = plan.effort, plan.seed
    wide = {Effort.SMOKE: (1, 4), Effort.QUICK: (1, 4, 64), Effort.FULL: (1, 4, 16, 64)}[effort]
    sizes = {Effort.SMOKE: (200,), Effort.QUICK: (3_000,), Effort.FULL: (1_000, 10_000, 100_000)}[effort]
    for cells in sizes:
        for columns in wide:
            name = f"{columns} model columns, {cells} cells, memory"
            runs = min(plan.runs, {10_000: 2, 100_000: 1}.get(cells, 3))
            yield Case(name, partial(_engine, columns, cells, seed, models=True, durable=False), runs)
    some = effort.pick(200, 1_500, 20_000)
    few = (wide[0], wide[-1]) if effort is Effort.QUICK else wide
    for columns in few:
        yield Case(
            f"{columns} local columns, {some} cells, memory",
            partial(_engine, columns, some, seed, models=False, durable=False),
            min(plan.runs, 2),
        )
    for columns in few:
        yield Case(
            f"{columns} model columns, {some} cells, SQLite",
            partial(_engine, columns, some, seed, models=True, durable=True),
            min(plan.runs, 2),
        )


def _engine(columns: int, cells: int, seed: int, *, models: bool, durable: bool) -> Iterable[Sample]:
    rows = max(1, cells // columns)
    count = rows * columns
    pipeline = _pipeline(columns, models=models)
    anyio.run(_run, pipeline, max(1, min(count, WARM_UP) // columns), seed, None)
    for name in BASELINES:
        baseline_us(name, min(count, WARM_UP), IN_FLIGHT)
    others = {name: baseline_us(name, count, IN_FLIGHT) for name in BASELINES}
    run = partial(_run, pipeline, rows, seed)
    runs = 1 if durable or count < WARM_UP // 2 else max(1, CELLS_MIN // count)
    idle_s = idle_late_s() if durable else 0.0
    turns = Turns()
    with tempfile.TemporaryDirectory() as folder, measured() as watch:
        if durable:
            _, turns = run_watched(partial(run, Path(folder) / "store.db"))
        else:
            for _ in range(runs):
                anyio.run(run, None)
    others = {name: (others[name] + baseline_us(name, count, IN_FLIGHT)) / 2 for name in BASELINES}
    own_us = watch.cpu_s / (runs * count) * 1e6
    goal: Goal | None = at_most(DURABLE_US if durable else IN_MEMORY_US)
    yield Sample("CPU per cell", "us", own_us, goal if cells >= 1_000 else None, noisy=True, baseline=ASYNCIO)
    for name, other_us in others.items():
        yield Sample(name, "us", other_us, noisy=True)
    for name, other_us in others.items():
        yield Sample(f"ratio to {name}", "x", own_us / other_us, better=Better.LOWER, noisy=True)
    yield Sample("cells per second", "/s", runs * count / watch.wall_s, better=Better.HIGHER, noisy=True)
    if durable:
        idle_s = max(idle_s, idle_late_s())
        yield Sample(STALL, "ms", turns.stalled_s * 1e3, at_most(STALL_MS), noisy=True)
        yield Sample(COLLECTED, "ms", turns.collected_s * 1e3, noisy=True)
        yield Sample(LATE, "ms", turns.late_s * 1e3, noisy=True)
        yield Sample(IDLE, "ms", idle_s * 1e3, noisy=True)


def _pipeline(columns: int, *, models: bool) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("noop")

    async def body(row: int) -> int:
        return row

    for index in range(columns):
        pipeline.column(body, name=f"c{index}", model=f"bench/m{index % MODELS}" if models else None)
    return pipeline


async def _run(pipeline: headgate.Pipeline, rows: int, seed: int, store: Path | None) -> None:
    limits = {"*": headgate.Limits(concurrency=IN_FLIGHT)}
    report = await headgate.arun(pipeline, rows, limits=limits, store=store, seed=seed)
    assert report.done == rows, report


def table(result: ScenarioResult) -> Iterator[str]:
    """One line a case: what a cell takes, how many times what the others take, and how long the loop was kept."""
    others = " | ".join(f"{name} | x" for name in BASELINES)
    yield f"| case | CPU per cell | to reach | {others} | cells/s | stall | collection | late | idle |"
    yield "|---|---:|---:|" + "---:|---:|" * len(BASELINES) + "---:|" * 5
    for case in result.cases:
        metrics = {metric.name: metric for metric in case.metrics}
        own = metrics["CPU per cell"]
        others = " | ".join(
            f"{metrics[name].median:.1f} us | {metrics[f'ratio to {name}'].median:.2f}" for name in BASELINES
        )
        waits = " | ".join(_marked(metrics[name]) if name in metrics else "" for name in (STALL, COLLECTED, LATE, IDLE))
        yield (
            f"| {case.name} | {_marked(own)} | {own.goal or ''} | {others} | "
            f"{metrics['cells per second'].median:.0f} | {waits} |"
        )
    for name, path in result.pictures.items():
        yield ""
        yield f"![{name}]({path})"


def draw(plan: Plan, result: ScenarioResult) -> Mapping[str, Path]:
    """CPU per cell over the columns, and over the cells."""
    from ..plots import over_size  # matplotlib takes a second to import

    assert plan.pictures is not None
    found: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for case in result.cases:
        shape = SHAPE.fullmatch(case.name)
        assert shape is not None
        columns, kind, cells, store = shape.groups()
        found.setdefault((kind, store), {})[int(columns), int(cells)] = case.metrics[0].median
    memory = found.get(("model", "memory"), {})
    by_columns = {
        f"{cells:,} cells": _curve({columns: us for (columns, other), us in memory.items() if other == cells})
        for cells in sorted({cells for _, cells in memory})
    }
    if stored := found.get(("model", "SQLite")):
        by_columns["SQLite, FULL"] = _curve({columns: us for (columns, _), us in stored.items()})
    by_cells = {
        f"{columns} columns": _curve({cells: us for (other, cells), us in memory.items() if other == columns})
        for columns in sorted({columns for columns, _ in memory})
    }
    pictures: dict[str, Path] = {}
    for across, curves in (("columns", by_columns), ("cells", by_cells)):
        if curves:
            title, file = f"CPU per cell over {across}", plan.pictures / f"cpu-per-cell-over-{across}.svg"
            pictures[title] = over_size(file, title, across, "microseconds", curves, IN_MEMORY_US)
    return pictures


def _curve(points: Mapping[int, float]) -> tuple[list[float], list[float]]:
    sizes = sorted(points)
    return [float(size) for size in sizes], [points[size] for size in sizes]


def _marked(metric: MetricResult) -> str:
    """The median with its spread; bold if it missed its goal."""
    spread = "" if len(metric.values) == 1 else f" ({metric.least:.0f} to {metric.most:.0f})"
    value = f"{metric.median:.1f} {metric.unit}"
    return f"**{value}**{spread}" if metric.met is False else f"{value}{spread}"


SCENARIO = Scenario(
    "overhead", "CPU time that the engine takes for a cell whose body does nothing.", cases, table, draw, in_turns=True
)
