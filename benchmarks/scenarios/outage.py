"""What an outage costs: a model that answers 500 or 429 to everything for a while, in virtual time.

Nothing may fail. ``lost`` is what the run took beyond an undisturbed one and the outage itself: how long the way back
took.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

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

from ..measure import Case, Effort, Plan, Sample, Scenario, at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["SCENARIO"]

BEGIN_S = 3.0
CAP = 64


def cases(plan: Plan) -> Iterator[Case]:
    """500s for half a second, five and sixty; 429s for three, without a hint, with a short and with a long one."""
    effort, seed = plan.effort, plan.seed
    rows = effort.pick(400, 400, 4_000)
    outages = [
        ("500s for 0.5 s", Change(at_s=BEGIN_S, reject=500), 0.5),
        ("500s for 5 s", Change(at_s=BEGIN_S, reject=500), 5.0),
        ("500s for 60 s", Change(at_s=BEGIN_S, reject=500), 60.0),
        ("429s for 3 s, silent", Change(at_s=BEGIN_S, reject=429), 3.0),
        ("429s for 3 s, retry after 0.3 s", _hinted(0.3, RetryAfter.MS), 3.0),
        ("429s for 3 s, retry after 2 s", _hinted(2.0, RetryAfter.SECONDS), 3.0),
    ]
    for limit in (16,) if effort is Effort.SMOKE else (16, "auto"):
        calm = cache(partial(_calm_s, rows, limit, seed))
        for name, change, seconds in outages:
            yield Case(f"{name}, limit {limit}", partial(_outage, rows, limit, change, seconds, seed, calm), runs=1)


def _hinted(seconds: float, how: RetryAfter) -> Change:
    return Change(at_s=BEGIN_S, reject=429, retry_after=how, retry_after_s=seconds)


def _calm_s(rows: int, limit: int | str, seed: int) -> float:
    return run_virtual(_run, rows, limit, (), seed)[0].seconds


def _outage(
    rows: int, limit: int | str, change: Change, seconds: float, seed: int, calm: Callable[[], float]
) -> Iterable[Sample]:
    # Nor does it give hints any more: those at later refusals would be obeyed, and counted as lost in the outage.
    script = (change, Change(at_s=BEGIN_S + seconds, reject=None, retry_after=RetryAfter.NONE))
    report, stats = run_virtual(_run, rows, limit, script, seed)
    yield Sample("rows failed", "", report.failed, at_most(0))
    yield Sample("rows held", "", report.held, at_most(0))
    yield Sample("refused requests", "", stats.requests - stats.accepted)
    yield Sample("undisturbed", "s", calm())
    yield Sample("lost beyond the outage", "s", report.seconds - calm() - seconds)
    yield Sample("paid twice", "", stats.accepted_again, at_most(0))


async def _run(
    rows: int, limit: int | str, script: tuple[Change, ...], seed: int
) -> tuple[headgate.RunReport, ModelStats]:
    model = ModelSpec(concurrency=CAP, latency=Latency(mean_s=0.2, sigma=0.3), script=script)
    provider = VirtualProvider(ProviderSpec(models={"m": model}, seed=seed))
    pipeline = headgate.Pipeline("outage")

    @pipeline.column(model="bench/m")
    async def answer(row: int) -> str:
        return (await provider.chat("m", f"row {row}")).text

    report = await headgate.arun(pipeline, rows, limits={"bench/m": {"concurrency": limit}}, seed=seed)
    return report, provider.stats().models["m"]


SCENARIO = Scenario(
    "outage", "A model that refuses everything for a while: nothing may fail, and how fast is the way back.", cases
)
