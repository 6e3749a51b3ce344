"""An async client that is attached outlives the event loop that it was used in: each call of a sync face is one."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import openai
import pytest

import headgate
from headgate.testing.provider import Latency
from tests.integration import attached as ways
from tests.integration.warm_servers import WarmProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headgate.testing.provider import ProviderProcess

# A connection of a loop that is over cannot be closed in good order, so Python says that it was not.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROWS = 6


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What is left of such connections goes while that is expected, and not in some other test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    with WarmProvider(ways.served()) as running:
        yield running


def asking(client: Any) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("again")

    @pipeline.column(model="openai/m")
    async def answer(row: int) -> str:
        prompt = ways.said(f"number {row}")
        if isinstance(client, httpx.AsyncClient):
            got = await client.post("/chat/completions", json={"model": "m", "messages": prompt})
            return str(got.raise_for_status().json()["choices"][0]["message"]["content"])
        if isinstance(client, openai.AsyncOpenAI):
            told = await client.chat.completions.create(model="m", messages=prompt)
            return told.choices[0].message.content or ""
        return str(await client.messages.create(model="m", messages=prompt, max_tokens=9))

    return pipeline


@pytest.mark.parametrize("kind", ["openai", "anthropic", "httpx"])
def test_a_client_is_used_again_by_the_next_call_of_a_sync_face(provider: ProviderProcess, kind: str) -> None:
    """Its connections were those of a closed loop: requests went out on them, were paid for, and failed as bugs."""
    provider.replace(ways.served())
    clients: dict[str, Any] = {
        "openai": lambda: openai.AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0),
        "anthropic": lambda: anthropic.AsyncAnthropic(base_url=provider.url, api_key="unused", max_retries=0),
        "httpx": lambda: httpx.AsyncClient(base_url=provider.base_url),
    }
    pipeline = asking(headgate.attach(clients[kind](), provider="openai"))
    reports = [headgate.run(pipeline, ROWS, limits={"openai/m": {"concurrency": 4}}) for _ in range(3)]
    assert [report.done for report in reports] == [ROWS] * 3, str(reports[-1])
    assert provider.stats().models["m"].requests == 3 * ROWS


def test_connections_of_a_loop_that_goes_on_are_left_alone(provider: ProviderProcess) -> None:
    provider.replace(ways.served(latency=Latency(mean_s=0.3)))
    client = headgate.attach(httpx.AsyncClient(base_url=provider.base_url), provider="openai")

    async def begin() -> httpx.Response:
        body = {"model": "m", "messages": ways.said("Well?"), "stream": True}
        return await client.send(client.build_request("POST", "/chat/completions", json=body), stream=True)

    with asyncio.Runner() as first:
        answer = first.run(begin())
        assert headgate.run(asking(client), 1).done == 1
        assert b"[DONE]" in first.run(answer.aread())
        with suppress(RuntimeError):  # it has one of the other loop too
            first.run(client.aclose())


def test_a_transport_of_somebody_else_is_not_closed(provider: ProviderProcess) -> None:
    """It may not open again."""

    class Own(httpx.AsyncHTTPTransport):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    transport = Own(limits=httpx.Limits(max_keepalive_connections=0))
    client = headgate.attach(httpx.AsyncClient(base_url=provider.base_url, transport=transport), provider="openai")
    provider.replace(ways.served())
    assert [headgate.run(asking(client), 3).done for _ in range(2)] == [3, 3]
    assert not transport.closed
