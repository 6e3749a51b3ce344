"""A sample run that needs no key and sends nothing: a provider with limits that nobody mentions, in virtual time."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio

from ..engine.engine import Engine
from ..engine.pipeline import Pipeline
from ..engine.requests import current_lease
from ..testing import (
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderSpec,
    RetryAfter,
    VirtualProvider,
    run_virtual,
)

if TYPE_CHECKING:
    from ..engine.report import RunReport

__all__ = ["Shown", "demonstrate", "told"]

_EPOCH_S = 1_700_000_000.0
_SLOTS, _PER_MINUTE = 24, 600


class Shown(NamedTuple):
    """The report of the run, and how many seconds it took to simulate."""

    report: RunReport
    took_s: float


def demonstrate(rows: int, *, seed: int) -> Shown:
    """Run a pipeline of three columns over so many rows, in virtual time; the same seed gives the same run."""
    began = time.monotonic()
    report = run_virtual(partial(_run, rows, seed))
    return Shown(report, time.monotonic() - began)


def told(shown: Shown) -> str:
    """The report, and what the provider was like."""
    requests = sum(resource.requests for resource in shown.report.resources)
    return (
        f"{shown.report}\n\n"
        f"The provider takes {_SLOTS} requests at once for one model and {_PER_MINUTE} a minute for the other, and "
        "some go wrong;\nnobody told headgate. No request left this machine: "
        f"{requests} of them, {shown.report.seconds:.0f} s, were simulated in {shown.took_s:.1f} s."
    )


async def _run(rows: int, seed: int) -> RunReport:
    provider = VirtualProvider(_spec(seed), epoch_s=_EPOCH_S)
    async with Engine(seed=seed, wall_clock=lambda: _EPOCH_S + anyio.current_time()) as engine:
        run = await engine.start(_pipeline(provider), rows)
        return await run.wait()


def _spec(seed: int) -> ProviderSpec:
    faults = Faults(error_500=0.01, reset=0.005, malformed=0.002)
    return ProviderSpec(
        seed=seed,
        models={
            "small": ModelSpec(
                concurrency=_SLOTS,
                latency=Latency(mean_s=1.0, sigma=0.6),
                output_tokens=OutputTokens(mean=30, sigma=0.5),
                faults=faults,
            ),
            "large": ModelSpec(
                requests_per_minute=_PER_MINUTE,
                request_burst=10,
                latency=Latency(mean_s=3.0, sigma=0.6),
                output_tokens=OutputTokens(mean=120, sigma=0.5),
                retry_after=RetryAfter.SECONDS,
                faults=faults,
            ),
        },
    )


def _pipeline(provider: VirtualProvider) -> Pipeline:
    pipeline = Pipeline("demo")

    async def ask(model: str, prompt: str) -> str:
        answer = await provider.chat(model, prompt)
        lease = current_lease()
        assert lease is not None
        lease.report(status=200, headers=answer.headers, usage=answer.usage)
        return answer.text

    def three_of_four(row: int) -> bool:
        return row % 4 > 0

    @pipeline.column(model="acme/small")
    async def question(row: int) -> str:
        return await ask("small", f"Ask something about number {row}.")

    @pipeline.column(model="acme/large", when=three_of_four)
    async def answer(row: int, question: str) -> str:
        return await ask("large", f"{question} It is about {row}.")

    @pipeline.column(model="acme/small")
    async def verdict(question: str, answer: str) -> str:
        return await ask("small", f"Is this right? {question} {answer}")

    return pipeline
