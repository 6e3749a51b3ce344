"""litellm's calls inside a column, through an HTTP client that is attached and handed to it.

litellm does not fit together with what the other tests need, so it has an environment of its own: 'make test-litellm'.
Elsewhere this file is skipped.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import headgate
from headgate.testing.provider import (
    Dialect,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderProcess,
    ProviderSpec,
    RetryAfter,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ROWS = 40
SERVED = ModelSpec(
    concurrency=6,
    latency=Latency(mean_s=0.02),
    output_tokens=OutputTokens(mean=10),
    headers=Dialect.OPENAI,
    retry_after=RetryAfter.MS,
)


@pytest.fixture
def anyio_backend() -> str:
    """litellm wants asyncio."""
    return "asyncio"


@asynccontextmanager
async def attached(litellm: Any) -> AsyncGenerator[None]:
    """``aclient_session`` is litellm's documented way to its HTTP client."""
    async with httpx.AsyncClient(timeout=30) as client:
        litellm.aclient_session = headgate.attach(client, provider="openai")
        yield
        litellm.aclient_session = None


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_each_attempt_of_litellm_is_one_lease(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks another host when it is imported
    litellm: Any = pytest.importorskip("litellm")
    async with ProviderProcess(ProviderSpec(models={"m": SERVED}, seed=3)) as provider, attached(litellm):
        pipeline = headgate.Pipeline("litellm")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            got = await litellm.acompletion(
                model="openai/m",
                messages=[{"role": "user", "content": f"answer number {row} now"}],
                api_base=provider.base_url,
                api_key="unused",
                num_retries=2,
                **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
            )
            if not stream:
                return str(got.choices[0].message.content)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in got if chunk.choices])

        report = await headgate.arun(pipeline, ROWS, limits={"openai/m": {"concurrency": "1-16-32"}}, seed=1)
        stats = provider.stats().models["m"]
    (resource,) = report.resources
    assert report.done == ROWS, str(report)
    assert resource.requests == stats.requests
    assert resource.outcomes.get("success", 0) == stats.answered == ROWS
    assert resource.outcomes.get("rate_limited", 0) == stats.statuses.get("429", 0)
    assert resource.usage == headgate.Usage(4 * ROWS, 10 * ROWS)
