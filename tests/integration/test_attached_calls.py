"""What attached clients may be used for, and where: threads, other loops, redirects, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import anthropic
import anyio
import httpx
import httpx2
import openai
import pytest

import headgate
from headgate.testing.provider import Latency, ProviderProcess
from tests.integration import attached as ways
from tests.integration.attached_engine import counts, engine_with, sdk
from tests.integration.warm_servers import WarmProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def anyio_backend() -> str:
    """The SDKs' own helpers want asyncio; trio has a test of its own."""
    return "asyncio"


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    with WarmProvider(ways.served()) as running:
        yield running


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_t11_a_local_queue_timeout_is_not_taken_for_a_provider_s(provider: ProviderProcess, kind: str) -> None:
    """T11, T10: also where the SDK wraps whatever its HTTP client raises."""
    provider.replace(ways.served(latency=Latency(mean_s=0.5)))
    openai_client = openai.AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0)
    anthropic_client = anthropic.AsyncAnthropic(base_url=provider.url, api_key="unused", max_retries=0)
    headgate.attach(openai_client, provider="openai")
    headgate.attach(anthropic_client, provider="openai")
    seen: list[str] = []

    def classify(error: BaseException) -> None:
        seen.append(type(error).__name__)

    async with openai_client, anthropic_client:
        pipeline = headgate.Pipeline("queued")

        @pipeline.column
        async def answer(row: int) -> str:
            if kind == "openai":
                await openai_client.chat.completions.create(model="m", messages=ways.said(f"number {row}"))
            else:
                await anthropic_client.messages.create(model="m", messages=ways.said(f"number {row}"), max_tokens=9)
            return "yes"

        limits = {"openai/m": {"concurrency": 1, "queue_timeout": 0.1}}
        report = await headgate.arun(pipeline, 3, limits=limits, classify=classify, seed=1)
    assert seen, "nobody had to wait"
    assert report.done == 3, str(report)
    assert counts_of_failures(report) <= {"admission_timeout"}
    assert provider.stats().models["m"].requests == 3


def counts_of_failures(report: headgate.RunReport) -> set[str]:
    return {str(kind) for one in report.resources for kind in one.outcomes} - {"success"}


async def test_a_blocking_client_on_the_loop_is_told_where_it_belongs(provider: ProviderProcess) -> None:
    provider.replace(ways.served())
    with httpx.Client(base_url=provider.base_url) as client:
        headgate.attach(client, provider="openai")
        async with engine_with():
            with pytest.raises(headgate.HeadgateError, match="plain function"):
                client.post("/chat/completions", json={"model": "m"})  # noqa: ASYNC212 - that is the point
    assert provider.stats().models["m"].requests == 0


async def test_a_model_whose_provider_nobody_named_is_refused(provider: ProviderProcess) -> None:
    async with httpx.AsyncClient(base_url=provider.base_url) as client, engine_with():
        headgate.attach(client)
        with pytest.raises(headgate.HeadgateError, match="provider="):
            await client.post("/chat/completions", json={"model": "m", "messages": ways.said("Well?")})


async def test_threads_that_a_body_starts_by_itself_wait_too(provider: ProviderProcess) -> None:
    """With ``asyncio.to_thread``, which knows nothing of the engine's threads."""
    provider.replace(ways.served(concurrency=2))
    with openai.OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client:
        headgate.attach(client)
        pipeline = headgate.Pipeline("own_threads")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            messages = ways.said(f"number {row}")
            got = await asyncio.to_thread(client.chat.completions.create, model="m", messages=messages)
            return got.choices[0].message.content or ""

        report = await headgate.arun(pipeline, 20, limits={"openai/m": {"concurrency": 2}})
        stats = provider.stats().models["m"]
    assert (report.done, stats.rejected) == (20, {}), str(report)
    ways.agree(report, stats)


async def test_retries_of_a_transport_around_the_one_that_sends_are_attempts(provider: ProviderProcess) -> None:
    """T15: as pydantic-ai's retrying transports are."""

    class Retrying(httpx2.AsyncBaseTransport):
        def __init__(self) -> None:
            self.wrapped = httpx2.AsyncHTTPTransport()

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await self.wrapped.handle_async_request(request)
            while response.status_code == 429:
                await response.aclose()
                await anyio.sleep(0.05)
                response = await self.wrapped.handle_async_request(request)
            return response

        async def aclose(self) -> None:
            await self.wrapped.aclose()

    provider.replace(ways.served(concurrency=1))
    async with httpx2.AsyncClient(base_url=provider.base_url, transport=Retrying(), timeout=30) as client:
        headgate.attach(client)
        pipeline = headgate.Pipeline("retrying")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            got = await client.post("/chat/completions", json={"model": "m", "messages": ways.said(f"row {row}")})
            return str(got.raise_for_status().json()["choices"][0]["message"]["content"])

        report = await headgate.arun(pipeline, 20, limits={"openai/m": {"concurrency": "1-4-8"}}, seed=1)
        stats = provider.stats().models["m"]
    assert report.done == 20
    assert stats.statuses.get("429", 0) >= 1, "nothing had to be retried"
    ways.agree(report, stats)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio(provider: ProviderProcess) -> None:
    provider.replace(ways.served())
    async with httpx2.AsyncClient(base_url=provider.base_url, timeout=30) as client:
        headgate.attach(client)
        with httpx2.Client(base_url=provider.base_url, timeout=30) as blocking:
            headgate.attach(blocking)
            pipeline = headgate.Pipeline("trio")

            @pipeline.column(model="openai/m")
            async def answer(row: int) -> str:
                body = {"model": "m", "messages": ways.said(f"number {row}"), "stream": True}
                async with client.stream("POST", "/chat/completions", json=body) as got:
                    got.raise_for_status()
                    return "".join([text async for text in got.aiter_text()])

            @pipeline.column(model="openai/m")
            def again(row: int) -> str:
                body = {"model": "m", "messages": ways.said(f"again {row}")}
                return blocking.post("/chat/completions", json=body).raise_for_status().text

            report = await headgate.arun(pipeline, 20, limits={"openai/m": {"concurrency": 6}})
            stats = provider.stats().models["m"]
    assert report.done == 20, str(report)
    assert counts_by_status(report) == {"success": stats.answered}


def counts_by_status(report: headgate.RunReport) -> dict[str, int]:
    (resource,) = report.resources
    return {str(outcome): count for outcome, count in resource.outcomes.items()}


async def test_what_the_headers_say_reaches_the_gate(provider: ProviderProcess) -> None:
    """A8: the rate in the headers of ordinary answers keeps the run below it, though nobody configured or reported."""
    served = ways.served(concurrency=None, requests_per_minute=1200, request_burst=20)
    provider.replace(served)
    async with sdk(provider) as client:
        pipeline = headgate.Pipeline("headers")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            got = await client.chat.completions.create(model="m", messages=ways.said(f"number {row}"))
            return got.choices[0].message.content or ""

        report = await headgate.arun(pipeline, 60, seed=1)
        stats = provider.stats().models["m"]
    assert report.done == 60
    assert stats.statuses == {"200": 60}
    ways.agree(report, stats)


class Sent(httpx.AsyncByteStream):
    """A body that is still to be read, as one from a socket is."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body[:10]
        yield self.body[10:]


@pytest.mark.parametrize("read", [True, False], ids=["answers at hand", "answers still to be read"])
async def test_encoded_bodies_and_redirects(read: bool) -> None:
    """A server between that compresses its answers and redirects first: two attempts, the usage of the second."""

    def serve(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/old":
            return httpx.Response(307, headers={"location": "/v1/new"})
        body = gzip.compress(b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}')
        encoded = {"content-encoding": "gzip"}
        if read:
            return httpx.Response(200, headers=encoded, content=body)
        return httpx.Response(200, headers=encoded, stream=Sent(body))

    transport = httpx.MockTransport(serve)
    async with httpx.AsyncClient(base_url="http://test", transport=transport, follow_redirects=True) as client:
        headgate.attach(client)
        pipeline = headgate.Pipeline("encoded")

        @pipeline.column(model="openai/m", timeout=5)
        async def answer(row: int) -> str:
            return (await client.post("/old", json={"model": "m"})).text

        report = await headgate.arun(pipeline, 3, limits={"openai/m": {"concurrency": 2}})
    (resource,) = report.resources
    assert (report.done, resource.requests) == (3, 6), str(report)
    assert resource.usage == headgate.Usage(9, 12)


EVENT = "data: " + '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}' + "\n\n"


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, "{}", "success"),
        (429, '{"error": {"type": "requests", "code": "rate_limit_exceeded"}}', "rate_limited"),
        (429, '{"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}', "rejected"),
        (400, '{"error": {"type": "invalid_request_error"}}', "rejected"),
        (500, "<html>", "provider_error"),
        (529, "", "overloaded"),
        (200, EVENT, "overloaded"),
    ],
)
async def test_what_the_gate_learns_from_an_answer(status: int, body: str, outcome: str) -> None:
    """A 429 of an empty account is no reason to go slower; an error event in a stream that began well is one."""
    kind = "text/event-stream" if body.startswith("data:") else "application/json"

    def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"content-type": kind}, stream=Sent(body.encode()))

    async with httpx.AsyncClient(base_url="http://test", transport=httpx.MockTransport(serve)) as client:
        headgate.attach(client)
        pipeline = headgate.Pipeline("answers")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            return (await client.post("/v1/chat/completions", json={"model": "m"})).text

        async with engine_with() as engine:
            run = await engine.start(pipeline, 1)
            report = await run.wait()
            assert report.done == 1, "what the status means for the cell is the body's to say"
            assert counts(engine, report) == {outcome: 1}


async def test_attaching_twice_replaces_what_was_said(provider: ProviderProcess) -> None:
    provider.replace(ways.served())
    async with httpx.AsyncClient(base_url=provider.base_url) as client, headgate.Engine() as engine:
        for name in ("first", "second"):
            headgate.attach(client, provider=name)
        await client.post("/chat/completions", json={"model": "m", "messages": ways.said("Well?")})
        assert [str(one) for one in engine.admission.gate.scopes()] == ["second", "second/m"]


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(headgate.ConfigError, match=r"headgate\.request"):
        headgate.attach(object())
