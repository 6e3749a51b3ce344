"""What one more of something costs when there are many: CPU per operation over a size, as the exponent of a power.

Each case is a series of sizes, 36 to 100 times apart from end to end. The sizes are measured in turn, twice over, and
each counts with its least: a shared machine only ever adds. The exponent is fitted by least
squares on logarithms (``benchmarks/fit.py``): 0 is flat, 1 is linear.

To reach is 0.1. Over a factor of 100 that is 1.6 times the cost. A heap or a tree, which is allowed (O(log n)), has the
exponent 0.11 from a thousand to a hundred thousand entries if it were all of the cost, and what a machine's caches lose
is of that size too; anything that looks at all that is there has an exponent near 1. For ready tasks, where a heap is
nearly all there is, both may come together: 0.2.
"""

from __future__ import annotations

import random
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

import headgate
from headgate.admission.gate import Gate
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Grant, Lease, Request
from headgate.salvage.classify import Failure
from headgate.salvage.kinds import FailureKind
from headgate.salvage.salvage import Salvage
from headgate.scheduler import Dispatcher, Task
from headgate.values import Outcome, ResourceKey

from ..fit import exponent
from ..measure import Better, Case, Effort, Sample, Scenario, at_most, measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from ..measure import Plan
    from ..result import Goal, ScenarioResult

    Cost = Callable[[int], float]

__all__ = ["SCENARIO"]

EXPONENT: Final = 0.1
EXPONENT_OF_A_HEAP: Final = 0.2
MODEL: Final = ResourceKey.parse("bench/m")
IN_FLIGHT: Final = 64
SLOTS: Final = 8
TURNS: Final = 3_000
FAR_S: Final = 1e9


def cases(plan: Plan) -> Iterator[Case]:
    """Rows, columns, row groups, past requests, parked waiters, ready tasks and held-back tasks."""
    sizes = {
        Effort.SMOKE: (10, 20),
        Effort.QUICK: (100, 1_000, 10_000),
        Effort.FULL: (1_000, 10_000, 100_000),
    }[plan.effort]
    cells = {Effort.SMOKE: (50, 100), Effort.QUICK: (400, 1_200, 4_000), Effort.FULL: (1_000, 6_000, 36_000)}[
        plan.effort
    ]
    columns = (1, 4) if plan.effort is Effort.SMOKE else (1, 4, 16, 64)
    most = plan.effort.pick(64, 1_280, 6_400)
    rounds = plan.effort.pick(1, 1, 2)
    series: list[tuple[str, str, tuple[int, ...], Cost]] = [
        ("rows", "per cell of 4 columns", tuple(size // 4 for size in cells), partial(_rows, plan.seed)),
        ("columns", f"per cell, {most} cells", columns, partial(_columns, most, plan.seed)),
        ("row groups", "per row, groups of 8", tuple(size // 16 for size in cells), partial(_groups, plan.seed)),
        ("past requests", "per acquire and release", sizes, _past),
        ("parked waiters", "per acquire and release", sizes, _parked),
        ("ready tasks", "per task pushed and popped", sizes, _ready),
        ("held-back tasks", "per task held and brought back", sizes, partial(_held, plan.seed)),
    ]
    for name, unit, series_sizes, cost in series:
        bound = EXPONENT_OF_A_HEAP if cost is _ready else EXPONENT
        goal = None if plan.effort is Effort.SMOKE else at_most(bound)
        yield Case(f"{name} ({unit})", partial(_series, series_sizes, cost, rounds, goal), runs=1)


def _series(sizes: tuple[int, ...], cost: Cost, rounds: int, goal: Goal | None) -> Iterable[Sample]:
    least = dict.fromkeys(sizes, float("inf"))
    for _ in range(rounds):
        for size in sizes:
            least[size] = min(least[size], cost(size))
    for size, us in least.items():
        yield Sample(f"at {size:,}", "us", us, better=Better.LOWER, noisy=True)
    # Near zero a quotient of two exponents says nothing: only the goal judges.
    yield Sample("exponent", "", exponent(least), goal, better=Better.NEITHER)


def _engine_us(pipeline: headgate.Pipeline, rows: int, per_row: int, seed: int, group_size: int = 32) -> float:
    async def main() -> None:
        limits = {"*": headgate.Limits(concurrency=IN_FLIGHT)}
        report = await headgate.arun(pipeline, rows, limits=limits, seed=seed, group_size=group_size)
        assert report.done == rows, report

    with measured() as watch:
        anyio.run(main)
    return watch.cpu_s / (rows * per_row) * 1e6


def _noop(columns: int) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("noop")

    async def body(row: int) -> int:
        return row

    for index in range(columns):
        pipeline.column(body, name=f"c{index}", model=str(MODEL))
    return pipeline


def _rows(seed: int, rows: int) -> float:
    return _engine_us(_noop(4), max(1, rows), 4, seed)


def _columns(cells: int, seed: int, columns: int) -> float:
    return _engine_us(_noop(columns), max(1, cells // columns), columns, seed)


def _groups(seed: int, groups: int) -> float:
    pipeline = headgate.Pipeline("groups")

    @pipeline.column(model=str(MODEL))
    async def one(row: int) -> int:
        return row

    @pipeline.column(model=str(MODEL), scope="group")
    async def together(one: list[int]) -> list[int]:
        return one

    return _engine_us(pipeline, 8 * max(1, groups), 1, seed, group_size=8)


def _gate(waiting: int) -> tuple[Gate, deque[Lease]]:
    """A gate with all its slots taken and so many requests of 64 flows in line."""
    gate = Gate(rng=random.Random(1))
    gate.register(MODEL, {str(MODEL): ScopeLimits(maximum=SLOTS)}, 0.0)
    out = deque[Lease]()
    for number in range(SLOTS + waiting):
        answer = gate.submit(Request(MODEL, flow=f"f{number % 64}"), 0.0)
        if isinstance(answer, Lease):
            out.append(answer)
    return gate, out


def _turns(gate: Gate, out: deque[Lease], count: int, began: float) -> None:
    """Each lease that comes back lets the next one in line go, and its flow queues again."""
    for turn in range(count):
        now = began + turn * 1e-4
        lease = out.popleft()
        gate.release(lease, Outcome.SUCCESS, now)
        out.extend([effect.lease for effect in gate.take_effects() if isinstance(effect, Grant)])
        gate.submit(lease.request, now)


def _past(past: int) -> float:
    gate, out = _gate(64)
    _turns(gate, out, past, 0.0)
    with measured() as watch:
        _turns(gate, out, TURNS, past * 1e-4)
    return watch.cpu_s / TURNS * 1e6


def _parked(waiting: int) -> float:
    gate, out = _gate(waiting)
    with measured() as watch:
        _turns(gate, out, TURNS, 0.0)
    return watch.cpu_s / TURNS * 1e6


def _ready(ready: int) -> float:
    dispatcher = Dispatcher()
    for column in range(4):
        dispatcher.add_flow(column, "m", rank=column)
    for row in range(ready):
        dispatcher.push(Task(row % 4, row // 4), row // 4)
    with measured() as watch:
        for turn in range(TURNS):
            task = dispatcher.pop("m")
            assert task is not None
            row = ready + turn
            dispatcher.push(Task(task.column, row), row)
    return watch.cpu_s / TURNS * 1e6


def _held(seed: int, held: int) -> float:
    """So many tasks are held for long, and others are held and come back at once, one after the other."""
    salvage: Salvage[int] = Salvage(rng=random.Random(seed))
    pressure = Failure(FailureKind.RATE_LIMITED, "slow down")
    for task in range(held):
        salvage.failed(task, "m", pressure, 0.0, cooldown_until=FAR_S)
    now = 1.0
    with measured() as watch:
        for turn in range(TURNS):
            task = held + turn
            salvage.failed(task, "n", pressure, now)
            now += 600.0
            for back in salvage.due(now, fresh_work=frozenset()):
                salvage.succeeded(back, "n", now)
    assert salvage.held == held
    return watch.cpu_s / TURNS * 1e6


def draw(plan: Plan, result: ScenarioResult) -> Mapping[str, Path]:
    """All series in one picture, each in relation to its smallest size."""
    from ..plots import over_size  # matplotlib takes a second to import

    assert plan.pictures is not None
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for case in result.cases:
        points = [
            (float(metric.name.removeprefix("at ").replace(",", "")), metric.median)
            for metric in case.metrics
            if metric.name.startswith("at ")
        ]
        first_size, first_us = points[0]
        curves[case.name.partition(" (")[0]] = (
            [size / first_size for size, _ in points],
            [us / first_us for _, us in points],
        )
    title = "CPU per operation as things grow, each relative to its smallest size"
    file = plan.pictures / "growth.svg"
    return {title: over_size(file, title, "times as many", "times the CPU", curves)}


SCENARIO = Scenario("growth", "CPU per operation over how many there are of something: flat?", cases, draw=draw)
