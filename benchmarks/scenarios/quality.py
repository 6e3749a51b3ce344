"""How well the work is ordered, in virtual time: each case against what no schedule can beat.

Durations are lognormal where nothing else is said, and drawn from the seed, so bounds are exact and nothing depends on
the machine. ``idle though there was work`` is the share of a model's slot seconds in which a slot was empty while a
cell that could have run was not running, cells of rows that had not been let in yet included (S4). What is between it
and the bound of the makespan is the end of a run, when fewer cells are left than slots, and the durations decide.
"""

from __future__ import annotations

import random
from functools import partial
from math import exp
from typing import TYPE_CHECKING, Final

from ..measure import Better, Case, Effort, Sample, Scenario, at_most
from ..quality.bounds import idle_share, in_use, makespan_bound, rows_bound
from ..quality.stage import Column, Flow, Played, play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from ..measure import Plan
    from ..result import ScenarioResult

__all__ = ["SCENARIO"]

IDLE: Final = 0.001
HEAD_OF_LINE: Final = 1.05
HEAD_OF_LINE_IDLE: Final = 0.05
DEEP: Final = 1.05
DEPTH: Final = 8
FIRST_ROWS: Final = 1.5
FAST_S, SLOW_S = 0.1, 1.0
GROUP_ROWS: Final = 16
LOOKED_AT: Final = 400
EACH_S: Final = 0.25


def cases(plan: Plan) -> Iterator[Case]:
    """Slot utilisation in several shapes, a slow model beside a fast one, a deep chain, and the first rows."""
    size = plan.effort.pick(1, 4, 20)

    def case(name: str, measure: Callable[[], Iterable[Sample]]) -> Case:
        return Case(name, measure, runs=1)

    for name, flow, slots in _shapes(size, plan.seed):
        yield case(f"slots in use: {name}", partial(_utilisation, flow, slots, plan.seed))
    for name, slow in _routes(100 * size):
        yield case(f"head of line: {name}", partial(_head_of_line, 100 * size, slow, plan.seed))
    for rows, wide, slots in ((4, 16, 8), (8 * size, 24, 32), (20 * size, 6, 8)):
        yield case(
            f"deep: {rows} rows, {DEPTH} in a chain and {wide} beside it", partial(_deep, rows, wide, slots, plan)
        )
    for name, sigma in (("alike", 0.0), ("lognormal", 0.5)):
        yield case(f"first rows: 5 in a chain, durations {name}", partial(_first_rows, 100 * size, sigma, plan))


def _shapes(size: int, seed: int) -> Iterator[tuple[str, Flow, int]]:
    def column(name: str, *after: str, sigma: float = 0.5, weight: float = 1.0, group: bool = False) -> Column:
        return Column(name, "m", _lasting(1.0, sigma, f"{seed} {name}"), after, group=group, weight=weight)

    diamond = [column("a"), column("b", "a"), column("c", "a"), column("d", "b", "c")]
    yield "diamond", Flow(diamond, 40 * size), 16
    yield "fan-out 64", Flow([column("root"), *(column(f"leaf{n}", "root") for n in range(64))], 3 * size), 32
    grouped = [column("a"), column("g", "a", group=True), column("b", "g")]
    yield f"group of {GROUP_ROWS}", Flow(grouped, 4 * GROUP_ROWS * size, options={"group_size": GROUP_ROWS}), 16
    ragged = [column("a", sigma=1.5), column("b", "a", sigma=1.5), column("c", "b", sigma=1.5)]
    yield "ragged", Flow(ragged, 40 * size), 16
    yield "weights 3 to 1", Flow([column("a", weight=3.0), column("b")], 40 * size), 16
    yield "weights 1 to 3 in a chain", Flow([column("a"), column("b", "a", weight=3.0)], 40 * size), 16


def _utilisation(flow: Flow, slots: int, seed: int) -> Iterable[Sample]:
    played = play([flow], {"m": slots}, seed=seed)
    group_rows = GROUP_ROWS if "group_size" in flow.options else 1
    yield Sample("idle though there was work", "x", idle_share(played, [flow], {"m": slots}, "m"), at_most(IDLE))
    yield from _makespan(played, makespan_bound([flow], {"m": slots}, group_rows))
    yield Sample("open rows, most", "", played.open_rows_max, better=Better.LOWER)


def _makespan(played: Played, bound_s: float, most: float | None = None) -> Iterable[Sample]:
    yield Sample("bound of the makespan", "s", bound_s)
    yield Sample("makespan", "s", played.makespan)
    goal = None if most is None else at_most(most)
    yield Sample("makespan over bound", "x", played.makespan / bound_s, goal, better=Better.LOWER)


def _routes(rows: int) -> Iterator[tuple[str, Callable[[int], bool]]]:
    """Which rows need the slow model: one in ten, spread or all together; ten times slower, it has as much to do."""
    yield "every tenth row is slow", lambda row: row % 10 == 9
    yield "the first tenth is slow", lambda row: row < rows // 10
    yield "a tenth in the middle is slow", lambda row: rows // 4 <= row < rows // 4 + rows // 10


def _head_of_line(rows: int, slow: Callable[[int], bool], seed: int) -> Iterable[Sample]:
    columns = _fast_and_slow(slow)
    flow, slots = Flow(columns, rows), {"fast": 8, "slow": 8}
    played = play([flow], slots, seed=seed)
    big = rows >= 1_000
    fast_bound_s = makespan_bound([Flow(columns[:1], rows)], slots)
    fast_s = max(span.ended for span in played.of("fast"))
    yield Sample("fast model: bound", "s", fast_bound_s)
    yield Sample("fast model: done over bound", "x", fast_s / fast_bound_s, at_most(HEAD_OF_LINE) if big else None)
    for name in slots:
        idle = idle_share(played, [flow], slots, name)
        yield Sample(f"{name}: idle though there was work", "x", idle, at_most(HEAD_OF_LINE_IDLE) if big else None)
    yield from _makespan(played, makespan_bound([flow], slots), HEAD_OF_LINE if big else None)
    yield Sample("open rows, most", "", played.open_rows_max, better=Better.LOWER)


def draw(plan: Plan, result: ScenarioResult) -> Mapping[str, Path]:
    """The slots in use of the fast and the slow model, in the three orders of rows."""
    from ..plots import over_time  # matplotlib takes a second to import

    assert plan.pictures is not None
    rows = max(LOOKED_AT, 100 * plan.effort.pick(1, 4, 20))
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, slow in _routes(rows):
        flow = Flow(_fast_and_slow(slow), rows)
        played = play([flow], {"fast": 8, "slow": 8}, seed=plan.seed)
        panels[name] = {model: in_use(played.of(model), EACH_S) for model in ("fast", "slow")}
    title = "Slots in use of a fast model and of one ten times slower"
    return {title: over_time(plan.pictures / "fast-and-slow.svg", title, "of 8 slots", panels, 8)}


def _fast_and_slow(slow: Callable[[int], bool]) -> list[Column]:
    def quick(row: int) -> bool:
        return not slow(row)

    return [
        Column("fast", "fast", lambda _: FAST_S, when=quick),
        Column("slow", "slow", lambda _: SLOW_S, when=slow),
    ]


def _deep(rows: int, wide: int, slots: int, plan: Plan) -> Iterable[Sample]:
    """Every cell takes a second. With work for all slots at all times the chain of the last row decides."""
    chain = [Column(f"c{n}", "m", lambda _: 1.0, (f"c{n - 1}",) if n else ()) for n in range(DEPTH)]
    beside = [Column(f"w{n}", "m", lambda _: 1.0) for n in range(wide)]
    flow = Flow([*beside, *chain], rows)
    played = play([flow], {"m": slots}, seed=plan.seed)
    yield Sample("idle though there was work", "x", idle_share(played, [flow], {"m": slots}, "m"), at_most(IDLE))
    yield from _makespan(played, makespan_bound([flow], {"m": slots}), DEEP if rows >= 100 else None)


def _first_rows(rows: int, sigma: float, plan: Plan) -> Iterable[Sample]:
    """``rows_bound`` knows every duration beforehand and takes the quickest rows first; where all are alike it is what
    a schedule could reach that finishes one row after the other.
    """
    slots = 32
    chain = [
        Column(f"c{n}", "m", _lasting(1.0, sigma, f"{plan.seed} {n}"), (f"c{n - 1}",) if n else ()) for n in range(5)
    ]
    flow = Flow(chain, rows)
    played = play([flow], {"m": slots}, seed=plan.seed)
    counts = {"first row": 1, "1 % of the rows": max(1, rows // 100), "10 % of the rows": max(1, rows // 10)}
    bounds = rows_bound(flow, slots, counts.values())
    for (name, count), bound_s in zip(counts.items(), bounds, strict=True):
        out_s = played.rows_out[0][count - 1]
        goal = at_most(FIRST_ROWS) if not sigma and count >= rows // 10 and plan.effort is not Effort.SMOKE else None
        yield Sample(name, "s", out_s, better=Better.LOWER)
        yield Sample(f"{name}: over bound", "x", out_s / bound_s, goal, better=Better.LOWER)
    yield from _makespan(played, makespan_bound([flow], {"m": slots}))
    yield Sample("open rows, most", "", played.open_rows_max, at_most(2 * slots))


def _lasting(mean_s: float, sigma: float, what: str) -> Callable[[int], float]:
    """Seconds of each row's task: lognormal with that mean, drawn by the row and ``what``."""

    def seconds(row: int) -> float:
        drawn = random.Random(f"{what} {row}").gauss(0.0, 1.0)
        return mean_s * exp(sigma * drawn - sigma * sigma / 2)

    return seconds


SCENARIO = Scenario(
    "quality",
    "Order of work against computable bounds, in virtual time: slots in use, head of line, deep chains, first rows.",
    cases,
    draw=draw,
)
