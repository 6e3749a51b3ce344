"""Clients of OpenAI's SDK, attached: each attempt on the wire is one lease, hidden retries and streams included."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import openai
import pytest

import headgate
from headgate.testing.provider import (
    Dialect,
    Latency,
    ModelSpec,
    ModelStats,
    OutputTokens,
    ProviderProcess,
    ProviderSpec,
    RetryAfter,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ROWS = 200
QUICK = Latency(mean_s=0.02)
TEN = OutputTokens(mean=10)
TIGHT = ModelSpec(concurrency=6, latency=QUICK, output_tokens=TEN, headers=Dialect.OPENAI, retry_after=RetryAfter.MS)


@pytest.fixture
def anyio_backend() -> str:
    """OpenAI's client is tested on the loop that it is mostly used on."""
    return "asyncio"


@asynccontextmanager
async def attached(provider: ProviderProcess, **more: Any) -> AsyncGenerator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(base_url=provider.base_url, api_key="unused", timeout=30, **more)
    async with headgate.attach(client):
        yield client


async def asked(client: openai.AsyncOpenAI, prompt: str, model: str = "m") -> str:
    answer = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])
    return answer.choices[0].message.content or ""


async def streamed(client: openai.AsyncOpenAI, prompt: str, model: str = "m") -> str:
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


def agree(report: headgate.RunReport, stats: ModelStats, resource: str = "openai/m") -> None:
    """What the run says it sent is what the provider says it got."""
    counted = next(one for one in report.resources if one.resource == resource)
    assert counted.requests == stats.requests, str(report)
    assert counted.outcomes.get("success", 0) == stats.answered
    assert counted.outcomes.get("rate_limited", 0) == stats.statuses.get("429", 0)
    assert counted.usage.input_tokens == stats.input_tokens
    assert counted.usage.output_tokens == stats.output_tokens


@pytest.mark.parametrize("ask", [asked, streamed])
async def test_t15_hidden_retries(ask: Any) -> None:
    """T15, A2: the SDK retries inside one call; each attempt is a lease, and no row fails."""
    async with ProviderProcess(ProviderSpec(models={"m": TIGHT}, seed=3)) as provider, attached(provider) as client:
        pipeline = headgate.Pipeline("attached")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            return await ask(client, f"answer number {row} now")

        async with headgate.Engine(limits={"openai/m": {"concurrency": "1-16-32"}}, seed=1) as engine:
            run = await engine.start(pipeline, ROWS)
            report = await run.wait()
            assert engine.admission.gate.leases() == 0
            engine.admission.gate.check()
        stats = provider.stats().models["m"]
    print(report)
    assert (report.done, report.failed, report.held) == (ROWS, 0, 0), str(report)
    assert stats.statuses["429"] >= 1, "nothing had to be retried"
    assert stats.accepted_again == 0
    agree(report, stats)
