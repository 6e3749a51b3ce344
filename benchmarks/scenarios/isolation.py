"""A model that refuses everything, for ever: the other one must not notice. In virtual time.

Each row needs both models, in columns that do not depend on each other. Model B answers 429 to everything, with a
Retry-After that never ends, so that no row can ever be complete; model A is well. A's bound is its work over its slots,
which no schedule of A alone can beat.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

import headgate
from headgate.testing.clock import run_virtual
from headgate.testing.provider import (
    Change,
    Latency,
    ModelSpec,
    ModelStats,
    ProviderSpec,
    RetryAfter,
    VirtualProvider,
)

from ..measure import Case, Sample, Scenario, at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..measure import Plan

__all__ = ["SCENARIO"]

SLOTS: Final = 16
OVER_BOUND: Final = 1.02
COOLDOWN_S: Final = 60.0
PATIENCE_S: Final = 600.0


def cases(plan: Plan) -> Iterator[Case]:
    """With B's column first and last in the pipeline, and with B after A in every row."""
    rows = plan.effort.pick(64, 1_000, 2_000)
    for name, order in (("A, then B", "ab"), ("B, then A", "ba"), ("B needs A", "a>b")):
        yield Case(name, partial(_isolated, rows, order, plan.seed), runs=1)


def _isolated(rows: int, order: str, seed: int) -> Iterable[Sample]:
    report, ends, stats = run_virtual(_run, rows, order, seed)
    bound_s = stats["a"].served_s / SLOTS
    big = rows >= 500  # below that the tail, when A runs out of cells, is all that is seen
    yield Sample("cells of A done", "", len(ends), at_least(rows))
    yield Sample("cells of B done", "", stats["b"].answered)
    yield Sample("rows failed", "", report.failed, at_most(0))
    yield Sample("requests that B refused", "", stats["b"].requests)
    yield Sample("bound of A: work over slots", "s", bound_s)
    yield Sample("makespan of A", "s", max(ends))
    yield Sample("makespan of A over bound", "x", max(ends) / bound_s, at_most(OVER_BOUND) if big else None)
    yield Sample("utilisation of A until its last start", "x", _utilisation(ends, stats["a"].served_s))


def _utilisation(ends: list[float], served_s: float) -> float:
    """A's work over its slots until the time at which fewer cells than slots were left."""
    last = sorted(ends)[-SLOTS]
    return min(1.0, served_s / (SLOTS * last))


async def _run(rows: int, order: str, seed: int) -> tuple[headgate.RunReport, list[float], Mapping[str, ModelStats]]:
    well = ModelSpec(concurrency=SLOTS, latency=Latency(mean_s=1.0, sigma=0.5))
    closed = Change(at_s=0.0, reject=429, retry_after=RetryAfter.SECONDS, retry_after_s=COOLDOWN_S)
    ill = ModelSpec(concurrency=SLOTS, script=(closed,))
    provider = VirtualProvider(ProviderSpec(models={"a": well, "b": ill}, seed=seed), network_s=0.0)
    pipeline = headgate.Pipeline("isolation")
    ends: list[float] = []

    async def a(row: int) -> str:
        answer = await provider.chat("a", f"a {row}")
        ends.append(anyio.current_time())
        return answer.text

    async def b(row: int) -> str:
        return (await provider.chat("b", f"b {row}")).text

    async def b_needs_a(a: str) -> str:
        return (await provider.chat("b", f"b {a}")).text

    for name in order.replace(">", ""):
        body = a if name == "a" else b_needs_a if ">" in order else b
        pipeline.column(body, name=name, model=f"bench/{name}")
    report = await headgate.arun(pipeline, rows, limits={"*": {"concurrency": SLOTS}}, seed=seed, patience=PATIENCE_S)
    return report, ends, provider.stats().models


SCENARIO = Scenario("isolation", "One model in cooldown for ever, and the pace of another one in the same rows.", cases)
