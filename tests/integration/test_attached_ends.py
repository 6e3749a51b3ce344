"""How attempts of attached clients end: broken off, cancelled, left open, refused; and what passes uncounted."""

from __future__ import annotations

import asyncio
import gzip
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import anyio
import httpx
import httpx2
import openai
import pytest

import headgate
from headgate.testing.provider import Faults, Latency, ProviderProcess, ProviderSpec
from tests.integration import attached as ways
from tests.integration.warm_servers import WarmProvider

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

SLOW = Latency(mean_s=30.0, first_token=0.001)


@pytest.fixture
def anyio_backend() -> str:
    """The SDKs' own helpers want asyncio; trio has a test of its own."""
    return "asyncio"


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    with WarmProvider(ways.served()) as running:
        yield running


@asynccontextmanager
async def sdk(provider: ProviderProcess, **more: Any) -> AsyncGenerator[openai.AsyncOpenAI]:
    more = {"max_retries": 0, "timeout": 30, **more}
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="unused", **more) as client:
        yield headgate.attach(client)


@asynccontextmanager
async def engine_with(**more: Any) -> AsyncGenerator[headgate.Engine]:
    """An engine of which no lease is left in the end."""
    async with headgate.Engine(limits={"openai/m": {"concurrency": 4}}, seed=1, **more) as engine:
        yield engine
        assert engine.admission.gate.leases() == 0
        engine.admission.gate.check()


def counts(engine: headgate.Engine, report: headgate.RunReport, resource: str = "openai/m") -> dict[str, int]:
    (counted,) = (one for one in report.resources if one.resource == resource)
    return {str(outcome): count for outcome, count in counted.outcomes.items()}


async def in_flight(provider: ProviderProcess, wanted: int) -> None:
    """Wait until the provider has as many requests."""
    with anyio.fail_after(10):
        while provider.stats().models["m"].in_flight != wanted:  # noqa: ASYNC110 - in another process
            await anyio.sleep(0.02)


async def no_more_in_flight(provider: ProviderProcess) -> None:
    """The provider sees a connection that was closed a moment later."""
    await in_flight(provider, 0)


async def stream_of(client: openai.AsyncOpenAI, row: int) -> Any:
    return await client.chat.completions.create(model="m", messages=ways.said(ways.prompt_of(row)), stream=True)


async def test_a2_cancelled_in_the_middle_of_a_stream(provider: ProviderProcess) -> None:
    """A2: a column's time-out cuts streams off; every lease is back, none is taken for a success."""
    provider.replace(ways.served(latency=SLOW))
    begun: list[int] = []
    async with sdk(provider) as client, engine_with() as engine:
        pipeline = headgate.Pipeline("cut")

        @pipeline.column(model="openai/m", timeout=2)
        async def answer(row: int) -> str:
            async for _ in await stream_of(client, row):
                begun.append(row)
            return "never"

        run = await engine.start(pipeline, 4, max_attempts=1, patience=0.1)
        report = await run.wait()
        assert report.done == 0
        assert set(counts(engine, report)) == {"cancelled"}
    assert set(begun) == {0, 1, 2, 3}
    await no_more_in_flight(provider)


async def test_a2_stopping_the_run_in_the_middle_of_streams(provider: ProviderProcess) -> None:
    """A2, S7: whoever stops the run gets all leases back."""
    provider.replace(ways.served(latency=SLOW))
    async with sdk(provider) as client, engine_with() as engine:
        pipeline = headgate.Pipeline("stopped")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            return "".join([str(chunk) async for chunk in await stream_of(client, row)])

        run = await engine.start(pipeline, 50)
        await in_flight(provider, 4)
        run.stop(grace=0)
        report = await run.wait()
        assert report.status is headgate.RunStatus.STOPPED
        assert engine.admission.gate.leases() == 0
    await no_more_in_flight(provider)


async def test_a2_a_stream_that_nobody_reads_to_its_end(provider: ProviderProcess) -> None:
    """A2: a body that leaves a stream open gives its lease back when it returns; one that closes it, at once."""
    provider.replace(ways.served(latency=SLOW))
    left: list[Any] = []
    async with sdk(provider) as client, engine_with() as engine:
        pipeline = headgate.Pipeline("left")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            stream = await stream_of(client, row)
            if row % 2:
                async with stream:
                    first = await anext(stream)
                assert engine.admission.gate.leases() <= 4
            else:
                first = await anext(stream)
                left.append(stream)
            return str(first.choices[0].delta.content)

        run = await engine.start(pipeline, 8)
        report = await run.wait()
        assert report.done == 8
        assert counts(engine, report) == {"success": 4, "cancelled": 4}
        for stream in left:  # too late to change anything
            await stream.close()
        assert engine.admission.gate.leases() == 0
    await no_more_in_flight(provider)


@pytest.mark.parametrize("how", ["cut", "left", "closed"])
async def test_a2_streams_of_aiohttp(provider: ProviderProcess, how: str) -> None:
    """A2: the same ends of a session's answers."""
    provider.replace(ways.served(latency=SLOW))
    left: list[aiohttp.ClientResponse] = []
    async with aiohttp.ClientSession(provider.url) as session, engine_with() as engine:
        headgate.attach(session)
        pipeline = headgate.Pipeline(how)

        @pipeline.column(model="openai/m", timeout=2 if how == "cut" else 30)
        async def answer(row: int) -> str:
            body = {"model": "m", "messages": ways.said(ways.prompt_of(row)), "stream": True}
            got = await session.post("/v1/chat/completions", json=body)
            left.append(got)
            line = await got.content.readline()
            if how == "cut":
                await got.content.read()
            elif how == "closed":
                got.close()
            return line.decode()

        run = await engine.start(pipeline, 4, max_attempts=1, patience=0.1)
        report = await run.wait()
        assert set(counts(engine, report)) == {"success" if how == "closed" else "cancelled"}
        assert report.done == (0 if how == "cut" else 4)
        for one in left:
            one.close()
    await no_more_in_flight(provider)


async def test_a_stream_that_breaks_in_the_middle_is_a_connection_error(provider: ProviderProcess) -> None:
    provider.replace(ways.served(faults=Faults(reset=0.4)))
    async with sdk(provider) as client, engine_with() as engine:
        pipeline = headgate.Pipeline("broken")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            stream = await stream_of(client, row)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        run = await engine.start(pipeline, 30)
        report = await run.wait()
        stats = provider.stats().models["m"]
        assert report.done == 30, str(report)
        assert counts(engine, report) == {"success": stats.answered, "connection_error": stats.statuses["reset"]}


async def test_the_lease_that_the_engine_holds_is_used_first(provider: ProviderProcess) -> None:
    """A2: with one slot and one lease for the whole column, a body can make its request, and then a second one."""
    provider.replace(ways.served(concurrency=1))
    async with sdk(provider) as client:
        pipeline = headgate.Pipeline("first")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            assert headgate.current_lease() is not None
            one = await client.chat.completions.create(model="m", messages=ways.said(f"one {row}"))
            assert headgate.current_lease() is None
            two = await client.chat.completions.create(model="m", messages=ways.said(f"two {row}"))
            return f"{one.choices[0].message.content} {two.choices[0].message.content}"

        limits = {"openai/m": {"concurrency": 1, "queue_timeout": 30}}
        report = await headgate.arun(pipeline, 10, limits=limits)
        stats = provider.stats().models["m"]
        assert (report.done, stats.rejected) == (10, {}), str(report)
        ways.agree(report, stats)


async def test_other_models_and_kinds_of_calls_are_counted_for_themselves(provider: ProviderProcess) -> None:
    models = {"m": ways.served().models["m"], "judge": ways.served().models["m"]}
    provider.replace(ProviderSpec(models=models, seed=3))
    async with sdk(provider) as client:
        pipeline = headgate.Pipeline("others")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            got = await client.chat.completions.create(model="m", messages=ways.said(f"number {row}"))
            await client.chat.completions.create(model="judge", messages=ways.said(f"judge {row}"))
            await client.embeddings.create(model="m", input=f"embed {row}")
            await client.models.list()
            return got.choices[0].message.content or ""

        report = await headgate.arun(pipeline, 20, limits={"openai": {"concurrency": 5}})
        stats = provider.stats().models
    assert report.done == 20, str(report)
    requests = {one.resource: one.requests for one in report.resources}
    assert requests == {"openai/m": 20, "openai/judge": 20, "openai/m:embedding": 20}
    assert stats["m"].requests + stats["judge"].requests == 60
    assert all(one.rejected == {} for one in stats.values())


async def test_outside_of_an_engine_an_attached_client_is_what_it_was(provider: ProviderProcess) -> None:
    provider.replace(ways.served())
    async with sdk(provider) as client:
        answer = await client.chat.completions.create(model="m", messages=ways.said("Well?"))
        assert answer.choices[0].message.content
        with openai.OpenAI(base_url=provider.base_url, api_key="unused") as blocking:
            headgate.attach(blocking)
            assert blocking.chat.completions.create(model="m", messages=ways.said("Well?")).choices


async def test_the_engine_s_own_user_is_admitted_too(provider: ProviderProcess) -> None:
    provider.replace(ways.served(concurrency=4))
    async with sdk(provider) as client, engine_with(), anyio.create_task_group() as tasks:
        for number in range(20):
            messages = ways.said(f"number {number}")
            tasks.start_soon(lambda said: client.chat.completions.create(model="m", messages=said), messages)
    stats = provider.stats().models["m"]
    assert (stats.answered, stats.rejected, stats.in_flight_max) == (20, {}, 4)


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


async def test_a_thread_whose_column_was_given_up_sends_nothing_more(provider: ProviderProcess) -> None:
    """A2: a thread cannot be stopped. What it still asks for is refused, and its open attempt is given back."""
    provider.replace(ways.served())
    over, gone, ends = threading.Event(), threading.Event(), list[str]()
    client = headgate.attach(openai.OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0))
    with client:
        pipeline = headgate.Pipeline("given_up")

        @pipeline.column(model="openai/m", timeout=2)
        def answer(row: int) -> str:
            client.chat.completions.create(model="m", messages=ways.said(f"first {row}"))
            assert over.wait(60)
            try:
                client.chat.completions.create(model="m", messages=ways.said(f"second {row}"))
            except headgate.AdmissionDenied as error:
                ends.append(error.reason)
            gone.set()
            return "late"

        async with engine_with() as engine:
            run = await engine.start(pipeline, 1, max_attempts=1, patience=0.1)
            report = await run.wait()
            assert report.done == 0
            assert counts(engine, report) == {"success": 1}
            over.set()
            assert await anyio.to_thread.run_sync(gone.wait, 60)
    assert ends == ["cancelled"]
    assert provider.stats().models["m"].requests == 1


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
