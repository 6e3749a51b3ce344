"""A long run has all slots of a model when a short one comes: does that get its share, and is no slot lost by it?

Eight slots; a run of 512 tasks of 0.5 s at time 0, and at 0.05 s another run of 256 tasks of 0.05 s on the same model,
both in one engine with equal weights. The long run has borrowed every slot by then. All durations are known, so what
could be is computed: the work over the slots, what the short run waits if it is served first, and what it waits first
come, first served.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ..measure import Better, Case, Sample, Scenario, at_most
from ..quality.bounds import in_order, makespan_bound, percentile
from ..quality.stage import Column, Flow, play

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..measure import Plan

__all__ = ["SCENARIO"]

SLOTS: Final = 8
LONG_S: Final = 0.5
SHORT_S: Final = 0.05
LONG, SHORT = 512, 256
ARRIVAL_S: Final = 0.05
WALL_S: Final = 33.9
WAIT_S: Final = 12.4
SPREAD: Final = 0.2
"""Durations that vary by so much: no two requests end in the same instant, as at a real provider."""


def cases(plan: Plan) -> Iterator[Case]:
    """All tasks of a run alike, and durations that vary a little around the same means."""
    scale = plan.effort.pick(16, 1, 1)
    for spread in (0.0, SPREAD):
        name = "durations alike" if not spread else f"durations vary by {spread:.0%}"
        yield Case(name, partial(_borrow, LONG // scale, SHORT // scale, spread, plan.seed), runs=1)


def _borrow(long: int, short: int, spread: float, seed: int) -> Iterable[Sample]:
    def lasting(mean_s: float, row: int) -> float:
        return mean_s * (1.0 + spread * (2.0 * ((row * 0.6180339887498949) % 1.0) - 1.0))

    flows = [
        Flow([Column("long", "m", partial(lasting, LONG_S))], long),
        Flow([Column("short", "m", partial(lasting, SHORT_S))], short, ARRIVAL_S),
    ]
    played = play(flows, {"m": SLOTS}, seed=seed)
    first = [(0.0, lasting(LONG_S, row)) for row in range(SLOTS)]
    peers = [(ARRIVAL_S, lasting(SHORT_S, row)) for row in range(short)]
    others = [(0.0, lasting(LONG_S, row)) for row in range(SLOTS, long)]
    at_best = in_order(first + peers, SLOTS)[SLOTS:]
    queued = in_order(first + others + peers, SLOTS)[long:]
    whole = long == LONG
    yield Sample("wall", "s", played.makespan, at_most(WALL_S) if whole and not spread else None)
    yield Sample("bound: work over slots", "s", makespan_bound(flows, {"m": SLOTS}))
    yield Sample(
        "peer wait p95", "s", _p95(span.began for span in played.of("short")), at_most(WAIT_S) if whole else None
    )
    yield Sample("bound: peers served first", "s", _p95(at_best))
    yield Sample("first come, first served", "s", _p95(queued))
    yield Sample("last peer done", "s", max(span.ended for span in played.of("short")), better=Better.LOWER)


def _p95(begins: Iterable[float]) -> float:
    return percentile((began - ARRIVAL_S for began in begins), 0.95)


SCENARIO = Scenario(
    "borrow", "Two runs share the slots of a model, one came first and has them all: what the other waits.", cases
)
