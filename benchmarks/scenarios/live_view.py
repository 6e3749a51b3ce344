"""What it costs to look at a run: a live view, events, telemetry, beside a run of a thousand cells a second.

The same run twice, one after the other: alone, and watched. What the second one takes more of a core is the cost. A run
whose bodies wait goes at the same speed either way, so nothing is hidden in a slower run. That difference is smaller
than what the machine makes of the same run twice, so the drawing is measured by itself too: a run that waits, in
virtual time, drawn a few hundred times.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

import headgate
from headgate.testing import run_virtual

from ..measure import Case, Effort, Plan, Sample, Scenario, Stopwatch, at_most, measured

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    Watched = Callable[[], AbstractContextManager[dict[str, Any]]]

__all__ = ["SCENARIO"]

CELLS_PER_S = 1_000
COLUMNS = 4
IN_FLIGHT = 64
"""Of all columns together: each body waits for so many thousandths of a second."""

DRAWS_PER_S = 2.0
SHARE_OF_A_CORE = 0.01


def cases(plan: Plan) -> Iterator[Case]:
    """The live view; in a full measurement events and telemetry too, which have no bound."""
    seconds, draws = plan.effort.pick(1, 7, 40) / 10, plan.effort.pick(10, 200, 1_000)
    yield Case(f"live view, drawn {draws} times", partial(_drawn, draws, plan.seed))
    found: list[tuple[str, Watched, float | None]] = [("live view on a terminal", _view, SHARE_OF_A_CORE)]
    if plan.effort is not Effort.QUICK:
        found += [
            ("events as lines of a file", _file, None),
            ("OpenTelemetry, spans and metrics kept by nobody", _telemetry, None),
        ]
    for name, watched, bound in found:
        goal = bound if plan.effort is Effort.FULL else None  # for less it is not exact enough
        yield Case(f"{name}, {seconds:g} s", partial(_compared, watched, seconds, plan.seed, goal), min(plan.runs, 3))


def _drawn(draws: int, seed: int) -> Iterable[Sample]:
    watch = Stopwatch()
    with _view() as options:
        run_virtual(partial(_run, IN_FLIGHT // COLUMNS, seed, options, wait_s=1.0))
        with measured(watch):
            run_virtual(partial(_run, IN_FLIGHT // COLUMNS, seed, options, wait_s=draws / DRAWS_PER_S))
    yield Sample("CPU of one drawing", "ms", watch.cpu_s / draws * 1e3, noisy=True)
    share = watch.cpu_s / draws * DRAWS_PER_S
    yield Sample("CPU for drawing", "of a core", share, at_most(SHARE_OF_A_CORE), noisy=True)


def _compared(watched: Watched, seconds: float, seed: int, bound: float | None) -> Iterable[Sample]:
    rows = round(seconds * CELLS_PER_S / COLUMNS)
    with watched() as options:
        anyio.run(_run, 2 * IN_FLIGHT, seed, options)  # what is imported and compiled at the first time
    alone = _measured(rows, seed, {})
    with watched() as options:
        seen = _measured(rows, seed, options)
    shares = alone.cpu_s / alone.wall_s, seen.cpu_s / seen.wall_s
    goal = None if bound is None else at_most(bound)
    yield Sample("CPU for watching", "of a core", shares[1] - shares[0], goal, noisy=True)
    yield Sample("CPU of the run alone", "of a core", shares[0], noisy=True)
    yield Sample("cells per second, watched", "1/s", COLUMNS * rows / seen.wall_s, noisy=True)


def _measured(rows: int, seed: int, options: dict[str, Any]) -> Stopwatch:
    watch = Stopwatch()
    with measured(watch):
        anyio.run(_run, rows, seed, options)
    return watch


async def _run(rows: int, seed: int, options: dict[str, Any], wait_s: float = IN_FLIGHT / CELLS_PER_S) -> None:
    pipeline = headgate.Pipeline("watched")

    async def body(row: int) -> int:
        await anyio.sleep(wait_s)
        return row

    for index in range(COLUMNS):
        pipeline.column(body, name=f"c{index}", model=f"bench/m{index}")
    limits = {"*": headgate.Limits(concurrency=IN_FLIGHT // COLUMNS)}
    report = await headgate.arun(pipeline, rows, limits=limits, seed=seed, **options)
    assert report.done == rows, report


@contextmanager
def _view() -> Generator[dict[str, Any]]:
    from rich.console import Console

    from headgate.observe import live

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        yield {"started": live(total=10_000, console=Console(file=nowhere, force_terminal=True, width=120, height=40))}


@contextmanager
def _file() -> Generator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        yield {"events": str(Path(folder) / "events.jsonl")}


@contextmanager
def _telemetry() -> Generator[dict[str, Any]]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from headgate.observe import Telemetry

    yield {"events": Telemetry(tracer_provider=TracerProvider(), meter_provider=MeterProvider())}


SCENARIO = Scenario(
    "live-view",
    "CPU time for watching a run of 1,000 cells a second: a live view, events, telemetry.",
    cases,
    in_turns=True,
)
