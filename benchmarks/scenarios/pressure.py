"""Hundreds of ready tasks behind four slots and a queue timeout of 20 ms: the case that once finished 47 of 128 rows.

Two model columns on one model, over real HTTP with OpenAI's client and a provider in its own process, and in virtual
time. The bound is the provider's own work: the time that its answers took, divided by four slots; no schedule is
faster. Beside it, in the same run, a loop by hand over the same client: one task per row, one semaphore per column for
order, and one of four that is never wrong for the model.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import anyio
from openai import AsyncOpenAI

import headgate
from headgate.salvage import FailureKind
from headgate.testing.clock import run_virtual
from headgate.testing.provider import (
    Latency,
    ModelSpec,
    ModelStats,
    OutputTokens,
    ProviderProcess,
    ProviderSpec,
    VirtualProvider,
)

from ..measure import Better, Case, Effort, Plan, Sample, Scenario, at_least, at_most, measured

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    Ask = Callable[[str], Awaitable[str]]

__all__ = ["SCENARIO"]

CAP = 4
QUEUE_TIMEOUT_S = 0.02
LIMITS = {"bench/m": {"concurrency": CAP, "queue_timeout": QUEUE_TIMEOUT_S}}
VIRTUAL_RATIO = 1.05
REAL_RATIO = 1.10
HAND = "by hand: CPU per request"


def cases(plan: Plan) -> Iterator[Case]:
    """128 rows of half a second, a minute for each of the two that are compared; fewer with less effort."""
    effort, seed = plan.effort, plan.seed
    rows = effort.pick(8, 16, 128)
    mean_s = effort.pick(20, 200, 500) / 1e3
    yield Case(f"{rows} rows, virtual time", partial(_virtual, rows, mean_s, seed), runs=1)
    yield Case(f"{rows} rows, real HTTP", partial(_real, rows, mean_s, seed, effort is Effort.FULL), runs=1)


def _spec(mean_s: float, seed: int) -> ProviderSpec:
    model = ModelSpec(concurrency=CAP, latency=Latency(mean_s=mean_s, sigma=0.5), output_tokens=OutputTokens(mean=20))
    return ProviderSpec(models={"m": model}, seed=seed)


def _pipeline(ask: Ask) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("pressure")

    @pipeline.column(model="bench/m")
    async def answer(row: int) -> str:
        return await ask(f"answer {row}")

    @pipeline.column(model="bench/m")
    async def judge(row: int) -> str:
        return await ask(f"judge {row}")

    return pipeline


async def _engine(ask: Ask, rows: int, seed: int) -> tuple[headgate.RunReport, int]:
    """Run it; returns the report and how often a request timed out in the local queue."""
    async with headgate.Engine(limits=LIMITS, seed=seed) as engine:
        run = await engine.start(_pipeline(ask), rows, min_open_rows=4 * rows)
        report = await run.wait()
        return report, run.core.salvage.statistics().holds.get(FailureKind.ADMISSION_TIMEOUT, 0)


def _samples(
    report: headgate.RunReport, timeouts: int, stats: ModelStats, rows: int, ratio: float | None
) -> Iterable[Sample]:
    bound_s = stats.served_s / CAP
    yield Sample("rows done", "", report.done, at_least(rows))
    yield Sample("timeouts of the local queue", "", timeouts, at_most(0))
    yield Sample("refused by the provider", "", stats.requests - stats.accepted, at_most(0))
    yield Sample("most in flight", "", stats.in_flight_max, at_most(CAP))
    yield Sample("bound", "s", bound_s)
    yield Sample("wall", "s", report.seconds)
    goal = None if ratio is None else at_most(ratio)
    yield Sample("wall over bound", "x", report.seconds / bound_s, goal, better=Better.LOWER)


def _virtual(rows: int, mean_s: float, seed: int) -> Iterable[Sample]:
    async def main() -> tuple[headgate.RunReport, int, ModelStats]:
        provider = VirtualProvider(_spec(mean_s, seed), network_s=0.0)

        async def ask(prompt: str) -> str:
            return (await provider.chat("m", prompt)).text

        report, timeouts = await _engine(ask, rows, seed)
        return report, timeouts, provider.stats().models["m"]

    report, timeouts, stats = run_virtual(main)
    return _samples(report, timeouts, stats, rows, VIRTUAL_RATIO)


def _real(rows: int, mean_s: float, seed: int, judged: bool) -> Iterable[Sample]:
    """What HTTP takes is a fixed time per request, so only answers as slow as real ones can be ``judged``."""
    with ProviderProcess(_spec(mean_s, seed)) as provider:
        with measured() as ours:
            report, timeouts = anyio.run(_engine_over_http, provider.base_url, rows, seed)
        stats = provider.stats().models["m"]
        yield from _samples(report, timeouts, stats, rows, REAL_RATIO if judged else None)
        own_us = ours.cpu_s / stats.requests * 1e6
        yield Sample("CPU per request, client included", "us", own_us, better=Better.LOWER, noisy=True, baseline=HAND)
        provider.control(reset=True)
        with measured() as theirs:
            seconds = anyio.run(_by_hand_over_http, provider.base_url, rows)
        stats = provider.stats().models["m"]
    bound_s = stats.served_s / CAP
    yield Sample("by hand: wall over bound", "x", seconds / bound_s)
    yield Sample(HAND, "us", theirs.cpu_s / stats.requests * 1e6, noisy=True)
    yield Sample("wall over that by hand", "x", report.seconds / seconds, better=Better.LOWER)


async def _engine_over_http(base_url: str, rows: int, seed: int) -> tuple[headgate.RunReport, int]:
    async with _client(base_url) as client:
        return await _engine(partial(_ask, client), rows, seed)


async def _by_hand_over_http(base_url: str, rows: int) -> float:
    async with _client(base_url) as client:
        return await _by_hand(partial(_ask, client), rows)


def _client(base_url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=60)


async def _ask(client: AsyncOpenAI, prompt: str) -> str:
    completion = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
    return completion.choices[0].message.content or ""


async def _by_hand(ask: Ask, rows: int) -> float:
    slots, open_rows = asyncio.Semaphore(CAP), asyncio.Semaphore(rows)

    async def cell(prompt: str) -> str:
        async with slots:
            return await ask(prompt)

    async def one(row: int) -> None:
        async with open_rows:
            await asyncio.gather(cell(f"answer {row}"), cell(f"judge {row}"))

    began = anyio.current_time()
    async with asyncio.TaskGroup() as tasks:
        for row in range(rows):
            tasks.create_task(one(row))
    return anyio.current_time() - began


SCENARIO = Scenario(
    "pressure", "Many ready tasks, four slots, a queue timeout of 20 ms: all done, none timed out, at the bound.", cases
)
