"""Agents of pydantic-ai inside a column: their model's client is attached, they are not changed."""

from __future__ import annotations

import openai
import pytest
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import headgate
from tests.integration import attached as ways
from tests.integration.warm_servers import WarmProvider

ROWS = 30


@pytest.fixture
def anyio_backend() -> str:
    """pydantic-ai wants asyncio."""
    return "asyncio"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_each_request_of_an_agent_is_one_lease(stream: bool) -> None:
    store = headgate.MemoryStore()
    async with WarmProvider(ways.served()) as provider:
        client = openai.AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=2)
        async with headgate.attach(client):
            agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client)))
            pipeline = headgate.Pipeline("agents")

            @pipeline.column(model="openai/m")
            async def answer(row: int) -> str:
                if not stream:
                    return (await agent.run(ways.prompt_of(row))).output
                async with agent.run_stream(ways.prompt_of(row)) as result:
                    return "".join([part async for part in result.stream_text(delta=True)])

            limits = {"openai/m": {"concurrency": "1-16-32"}}
            report = await headgate.arun(pipeline, ROWS, limits=limits, store=store, seed=1)
        stats = provider.stats().models["m"]
    assert report.done == ROWS, str(report)
    assert stats.statuses.get("429", 0) >= 1, "nothing had to be retried"
    ways.agree(report, stats)
    assert ways.credited(store, "agents") == ways.all_credited(ROWS)
