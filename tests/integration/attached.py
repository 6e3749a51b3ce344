"""Ways to ask the test provider one question through an attached client, and the books to compare afterwards."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import httpx
import httpx2
import openai

import headgate
from headgate.testing.provider import Dialect, Latency, ModelSpec, ModelStats, OutputTokens, ProviderSpec, RetryAfter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from headgate.testing.provider import ProviderProcess

    Ask = Callable[[str], Awaitable[str]]
    BlockingAsk = Callable[[str], str]

KEY = "unused"


def served(**more: Any) -> ProviderSpec:
    """A model behind six slots that states what it does in headers."""
    spec = {
        "concurrency": 6,
        "latency": Latency(mean_s=0.02),
        "output_tokens": OutputTokens(mean=10),
        "headers": Dialect.OPENAI,
        "retry_after": RetryAfter.MS,
        **more,
    }
    return ProviderSpec(models={"m": ModelSpec.model_validate(spec)}, seed=3)


def said(prompt: str) -> list[Any]:
    return [{"role": "user", "content": prompt}]


def prompt_of(row: int) -> str:
    """A prompt of ``tokens_of(row)`` words that no other row has."""
    return f"answer number {row} now" + " please" * (row % 7)


def tokens_of(row: int) -> int:
    return 4 + row % 7


@asynccontextmanager
async def openai_sdk(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key=KEY, max_retries=2) as client:
        headgate.attach(client)

        async def ask(prompt: str) -> str:
            answer = await client.chat.completions.create(model="m", messages=said(prompt))
            return answer.choices[0].message.content or ""

        yield ask


@asynccontextmanager
async def openai_stream(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key=KEY, max_retries=2) as client:
        headgate.attach(client)

        async def ask(prompt: str) -> str:
            options: Any = {"include_usage": True}
            stream = await client.chat.completions.create(
                model="m", messages=said(prompt), stream=True, stream_options=options
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        yield ask


@asynccontextmanager
async def openai_old_httpx(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    """The SDK over a client of httpx that somebody made and attached himself."""
    http: Any = headgate.attach(httpx.AsyncClient(timeout=30))
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key=KEY, max_retries=2, http_client=http) as client:

        async def ask(prompt: str) -> str:
            answer = await client.chat.completions.create(model="m", messages=said(prompt))
            return answer.choices[0].message.content or ""

        yield ask


@asynccontextmanager
async def anthropic_sdk(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key=KEY, max_retries=2) as client:
        headgate.attach(client)

        async def ask(prompt: str) -> str:
            answer = await client.messages.create(model="m", messages=said(prompt), max_tokens=100)
            return "".join([block.text for block in answer.content if block.type == "text"])

        yield ask


@asynccontextmanager
async def anthropic_stream(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key=KEY, max_retries=2) as client:
        headgate.attach(client)

        async def ask(prompt: str) -> str:
            async with client.messages.stream(model="m", messages=said(prompt), max_tokens=100) as stream:
                return "".join([text async for text in stream.text_stream])

        yield ask


@asynccontextmanager
async def plain_httpx(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    async with httpx.AsyncClient(base_url=provider.base_url, timeout=30) as client:
        headgate.attach(client)

        async def ask(prompt: str) -> str:
            answer = await client.post("/chat/completions", json={"model": "m", "messages": said(prompt)})
            return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

        yield ask


@asynccontextmanager
async def plain_httpx2(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    """Attached by its transport."""
    transport = headgate.attach(httpx2.AsyncHTTPTransport())
    async with httpx2.AsyncClient(base_url=provider.base_url, timeout=30, transport=transport) as client:

        async def ask(prompt: str) -> str:
            answer = await client.post("/chat/completions", json={"model": "m", "messages": said(prompt)})
            return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

        yield ask


@asynccontextmanager
async def aiohttp_session(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    async with aiohttp.ClientSession(provider.url) as session:
        headgate.attach(session)

        async def ask(prompt: str) -> str:
            body = {"model": "m", "messages": said(prompt)}
            async with session.post("/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()
                return str((await answer.json())["choices"][0]["message"]["content"])

        yield ask


@asynccontextmanager
async def aiohttp_stream(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    """Read line by line, as event streams are."""
    async with aiohttp.ClientSession(provider.url) as session:
        headgate.attach(session)

        async def ask(prompt: str) -> str:
            body = {"model": "m", "messages": said(prompt), "stream": True, "stream_options": {"include_usage": True}}
            async with session.post("/v1/chat/completions", json=body, raise_for_status=True) as answer:
                lines = [line.decode() async for line in answer.content]
            return "".join(lines)

        yield ask


@asynccontextmanager
async def openai_on_aiohttp(provider: ProviderProcess) -> AsyncGenerator[Ask]:
    """The SDK on a session, through the transport that its extra brings."""
    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key=KEY, http_client=http) as client:
        headgate.attach(client)

        async def ask(prompt: str) -> str:
            answer = await client.chat.completions.create(model="m", messages=said(prompt))
            return answer.choices[0].message.content or ""

        yield ask


@contextmanager
def openai_blocking(provider: ProviderProcess) -> Generator[BlockingAsk]:
    with openai.OpenAI(base_url=provider.base_url, api_key=KEY, max_retries=2) as client:
        headgate.attach(client)

        def ask(prompt: str) -> str:
            answer = client.chat.completions.create(model="m", messages=said(prompt))
            return answer.choices[0].message.content or ""

        yield ask


@contextmanager
def openai_blocking_stream(provider: ProviderProcess) -> Generator[BlockingAsk]:
    with openai.OpenAI(base_url=provider.base_url, api_key=KEY, max_retries=2) as client:
        headgate.attach(client)

        def ask(prompt: str) -> str:
            options: Any = {"include_usage": True}
            stream = client.chat.completions.create(
                model="m", messages=said(prompt), stream=True, stream_options=options
            )
            return "".join([chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices])

        yield ask


@contextmanager
def anthropic_blocking_stream(provider: ProviderProcess) -> Generator[BlockingAsk]:
    with anthropic.Anthropic(base_url=provider.url, api_key=KEY, max_retries=2) as client:
        headgate.attach(client)

        def ask(prompt: str) -> str:
            with client.messages.stream(model="m", messages=said(prompt), max_tokens=100) as stream:
                return "".join(stream.text_stream)

        yield ask


@contextmanager
def httpx_blocking(provider: ProviderProcess) -> Generator[BlockingAsk]:
    with httpx.Client(base_url=provider.base_url, timeout=30) as client:
        headgate.attach(client)

        def ask(prompt: str) -> str:
            answer = client.post("/chat/completions", json={"model": "m", "messages": said(prompt)})
            return str(json.loads(answer.raise_for_status().content)["choices"][0]["message"]["content"])

        yield ask


def agree(report: headgate.RunReport, stats: ModelStats, resource: str = "openai/m") -> None:
    """What the run says it sent is what the provider says it got."""
    counted = next(one for one in report.resources if one.resource == resource)
    assert counted.requests == stats.requests, str(report)
    assert counted.outcomes.get("success", 0) == stats.answered
    assert counted.outcomes.get("rate_limited", 0) == stats.statuses.get("429", 0)
    assert counted.usage.input_tokens == stats.input_tokens
    assert counted.usage.output_tokens == stats.output_tokens


def credited(store: headgate.MemoryStore, run: str, column: str = "answer") -> dict[int, headgate.Usage]:
    """The tokens of each cell, by row."""
    return {cell.row: cell.usage for row in store.read_rows(run) for cell in row.cells if cell.column == column}


def all_credited(rows: int) -> dict[int, headgate.Usage]:
    return {row: headgate.Usage(tokens_of(row), 10) for row in range(rows)}
