"""How attempts of attached clients end: broken off, cancelled, left open, refused; and what passes uncounted."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import openai
import pytest

import headgate
from headgate.testing.provider import Faults, Latency, ProviderProcess, ProviderSpec
from tests.integration import attached as ways
from tests.integration.attached_engine import counts, engine_with, sdk
from tests.integration.warm_servers import WarmProvider

if TYPE_CHECKING:
    from collections.abc import Iterator


SLOW = Latency(mean_s=30.0, first_token=0.001)


@pytest.fixture
def anyio_backend() -> str:
    """The SDKs' own helpers want asyncio; trio has a test of its own."""
    return "asyncio"


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    with WarmProvider(ways.served()) as running:
        yield running


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
