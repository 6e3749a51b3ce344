"""The whole engine with real parts: OpenAI's client, real sockets, a provider in its own process, a SQLite file.

What the provider counted is compared with what the run reports: nothing lost, nothing asked twice, nothing hidden.
No test here asserts on wall time; that is the benchmarks' business.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread
from openai import AsyncOpenAI

import headgate
from headgate.testing.provider import (
    Capacity,
    Dialect,
    Faults,
    Latency,
    ModelSpec,
    ModelStats,
    OutputTokens,
    ProviderSpec,
    RetryAfter,
)
from tests.integration.warm_servers import WarmProvider

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

QUICK = Latency(mean_s=0.02)
TEN = OutputTokens(mean=10)


@pytest.fixture
def anyio_backend() -> str:
    """OpenAI's client is tested on the loop that it is mostly used on."""
    return "asyncio"


class Asking:
    """The client of a test, with the one call that all columns make."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self.client = client

    async def __call__(self, model: str, prompt: str) -> str:
        response = await self.client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": prompt}]
        )
        lease = headgate.current_lease()
        assert lease is not None
        lease.report(status=response.status_code, headers=response.headers)
        completion = response.parse()
        lease.report(usage=completion.usage)
        return completion.choices[0].message.content or ""


@asynccontextmanager
async def asking(base_url: str) -> AsyncGenerator[Asking]:
    async with AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=30) as client:
        yield Asking(client)


@asynccontextmanager
async def trouble(provider: WarmProvider, status: int, *, seconds: float, after: int = 0) -> AsyncGenerator[None]:
    """The provider answers ``status`` to everything, for ``seconds`` from the first of it on.

    It begins once so many requests were answered, not at a time: on a slow machine a run begins late.
    """

    async def see(counted: Callable[[ModelStats], int], wanted: int) -> None:
        while counted((await to_thread.run_sync(provider.stats)).models["m"]) < wanted:  # noqa: ASYNC110  (it is in another process)
            await anyio.sleep(0.005)

    async def pass_by() -> None:
        await see(lambda stats: stats.answered, after)
        await to_thread.run_sync(provider.control, "m", Capacity(reject=status))
        await see(lambda stats: stats.statuses.get(str(status), 0), 1)
        await anyio.sleep(seconds)
        await to_thread.run_sync(provider.control, "m", Capacity(reject=None))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pass_by)
        yield


def spec(**models: ModelSpec) -> ProviderSpec:
    return ProviderSpec(models=models, seed=3)


def one_column(ask: Asking, model: str = "m") -> headgate.Pipeline:
    pipeline = headgate.Pipeline("one")

    @pipeline.column(model=f"openai/{model}")
    async def answer(row: int) -> str:
        return await ask(model, f"answer number {row} now")

    return pipeline


def two_columns(ask: Asking, first: str = "m", second: str = "m") -> headgate.Pipeline:
    """Two columns that do not need each other."""
    pipeline = one_column(ask, first)

    @pipeline.column(model=f"openai/{second}")
    async def judge(row: int) -> str:
        return await ask(second, f"judge number {row} now")

    return pipeline


def chain(ask: Asking, model: str = "m") -> headgate.Pipeline:
    """Two columns, the second needs the first."""
    pipeline = one_column(ask, model)

    @pipeline.column(model=f"openai/{model}")
    async def verdict(row: int, answer: str) -> str:
        assert answer
        return await ask(model, f"verdict number {row} now")

    return pipeline


def all_done(report: headgate.RunReport, rows: int) -> bool:
    assert report.accepted == rows
    assert [(column.done, column.failed, column.held) for column in report.columns] == [(rows, 0, 0)] * len(
        report.columns
    ), str(report)
    assert len(list(report.results())) == rows
    return report.status is headgate.RunStatus.COMPLETED and report.done == rows


def agree(report: headgate.RunReport, model: str, stats: ModelStats) -> None:
    """What the run says it sent is what the provider says it got."""
    resource = next(one for one in report.resources if one.resource == f"openai/{model}")
    assert resource.requests == stats.requests
    outcomes = resource.outcomes
    assert outcomes.get("success", 0) + outcomes.get("invalid_output", 0) == stats.answered
    assert outcomes.get("rate_limited", 0) == stats.statuses.get("429", 0)
    assert outcomes.get("provider_error", 0) == stats.statuses.get("500", 0)
    assert outcomes.get("connection_error", 0) == stats.statuses.get("reset", 0)
    malformed = stats.faults.get("malformed", 0)
    assert resource.usage.input_tokens == 4 * (stats.answered - malformed)
    assert resource.usage.output_tokens == 10 * (stats.answered - malformed)
    assert resource.wasted == stats.requests - stats.answered + malformed


async def test_hundreds_of_ready_tasks_behind_four_slots_time_nobody_out() -> None:
    """T22: elsewhere 47 of 128 rows were done, after 2,132 timeouts of the local queue. S4, A1."""
    rows = 128
    async with WarmProvider(spec(m=ModelSpec(concurrency=4, latency=QUICK, output_tokens=TEN))) as provider:
        async with asking(provider.base_url) as ask:
            report = await headgate.arun(
                two_columns(ask),
                rows,
                limits={"openai/m": {"concurrency": 4, "queue_timeout": 0.02}},
                min_open_rows=512,
            )
        assert all_done(report, rows)
        stats = provider.stats().models["m"]
    assert stats.in_flight_max <= 4
    assert stats.rejected == {}
    assert stats.requests == stats.answered == 2 * rows
    assert stats.accepted_again == 0
    assert report.resources[0].outcomes == {"success": 2 * rows}
    assert report.resources[0].peak_in_flight == 4
    agree(report, "m", stats)


@pytest.mark.parametrize(
    ("retry_after", "hint_s", "rows"),
    [(RetryAfter.NONE, None, 60), (RetryAfter.MS, 0.3, 60), (RetryAfter.SECONDS, 1.0, 24)],
)
async def test_v1_pressure_alone_fails_no_row(retry_after: RetryAfter, hint_s: float | None, rows: int) -> None:
    """V1: the provider answers 429 to everything for a while, in the middle of the run, and recovers."""
    served = ModelSpec(concurrency=32, latency=QUICK, output_tokens=TEN, retry_after=retry_after, retry_after_s=hint_s)
    async with (
        WarmProvider(spec(m=served)) as provider,
        asking(provider.base_url) as ask,
        trouble(provider, 429, seconds=1.3, after=1),
    ):
        report = await headgate.arun(chain(ask), rows, limits={"openai/m": {"concurrency": "1-4-8"}}, seed=1)
        assert all_done(report, rows)
        stats = provider.stats().models["m"]
    assert stats.statuses["429"] >= 1
    assert stats.statuses["429"] <= 24, "it was hammered"
    assert stats.accepted_again == 0
    agree(report, "m", stats)


async def test_v1_a_provider_that_begins_with_429_to_everything() -> None:
    """V1: not one request was ever answered when the trouble began."""
    rows = 12
    served = ModelSpec(
        latency=QUICK,
        output_tokens=TEN,
        reject=429,
        retry_after=RetryAfter.SECONDS,
        retry_after_s=1.0,
    )
    async with (
        WarmProvider(spec(m=served)) as provider,
        asking(provider.base_url) as ask,
        trouble(provider, 429, seconds=1.3),
    ):
        report = await headgate.arun(one_column(ask), rows, seed=1)
        assert all_done(report, rows)
        stats = provider.stats().models["m"]
    assert 1 <= stats.statuses["429"] <= 16
    agree(report, "m", stats)


@pytest.mark.parametrize("seconds", [0.5, 2.0])
async def test_t33_half_a_second_of_500s(seconds: float) -> None:
    """T33: elsewhere 40 of 40 rows were dropped within 0.16 s of fast 500s."""
    rows = 120
    served = ModelSpec(latency=QUICK, output_tokens=TEN)
    async with (
        WarmProvider(spec(m=served)) as provider,
        asking(provider.base_url) as ask,
        trouble(provider, 500, seconds=seconds, after=16),
    ):
        report = await headgate.arun(
            chain(ask), rows, limits={"openai/m": {"concurrency": 16}}, min_open_rows=120, seed=1
        )
        assert all_done(report, rows)
        stats = provider.stats().models["m"]
    assert stats.statuses["500"] >= 8
    assert stats.statuses["500"] <= 60, "an outage was hammered"
    assert stats.accepted_again == 0
    agree(report, "m", stats)


async def test_t26_blocked_by_a_neighbour(tmp_path: Path) -> None:
    """T26: elsewhere a model in endless 429 held a healthy one at 30 of 100 cells, and nothing was finalised.

    The healthy model's column finishes; the run ends as held when patience is over; a later run finishes the rest and
    asks for nothing a second time.
    """
    rows = 150
    healthy = ModelSpec(concurrency=8, latency=QUICK, output_tokens=TEN)
    refusing = ModelSpec(reject=429, latency=QUICK, output_tokens=TEN)
    async with WarmProvider(spec(good=healthy, bad=refusing)) as provider, asking(provider.base_url) as ask:
        pipeline = two_columns(ask, "good", "bad")
        limits = {"openai/good": {"concurrency": 8}, "openai/bad": {"concurrency": 8}}
        held = await headgate.arun(pipeline, rows, limits=limits, store=tmp_path / "s.db", patience=1.5, seed=1)
        good, bad = held.columns
        assert (good.done, good.held) == (rows, 0), str(held)
        assert (bad.done, bad.failed, bad.held) == (0, 0, rows)
        assert held.status is headgate.RunStatus.HELD
        assert held.exit_code == 4
        assert "s.db" in held.resume_hint
        before = provider.stats().models["good"]
        agree(held, "bad", provider.stats().models["bad"])

        provider.control("bad", Capacity(reject=None))
        resumed = await headgate.arun(pipeline, rows, limits=limits, store=tmp_path / "s.db", seed=2)
        assert all_done(resumed, rows)
        after = provider.stats().models
    # Nothing was asked again; what counts on is the time in which there was capacity.
    assert after["good"] == replace(before, capacity_s=after["good"].capacity_s)
    assert after["bad"].accepted_again == 0
    assert after["bad"].answered == rows


async def test_s1_a_provider_with_faults_of_every_kind() -> None:
    """S1: every row ends in one outcome, and the provider's own books agree with the report's."""
    rows = 300
    faults = Faults(error_500=0.02, reset=0.01, malformed=0.005)
    served = ModelSpec(concurrency=24, latency=QUICK, output_tokens=TEN, faults=faults)
    async with WarmProvider(spec(m=served)) as provider, asking(provider.base_url) as ask:
        report = await headgate.arun(chain(ask), rows, limits={"openai/m": {"concurrency": 16}}, seed=1)
        assert all_done(report, rows)
        stats = provider.stats().models["m"]
    assert set(stats.faults) == {"error_500", "reset", "malformed"}, "the faults did not all happen: change the seed"
    assert stats.answered_again == stats.faults["malformed"], "something good was asked for twice"
    agree(report, "m", stats)


async def test_an_endpoint_that_refuses_connections_holds_the_run(tmp_path: Path) -> None:
    """V1, V5: nobody listens, so nothing fails for good, nothing is hammered, and the report says what is wrong."""
    rows = 200
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    async with asking(f"http://127.0.0.1:{port}/v1") as ask:
        report = await headgate.arun(one_column(ask), rows, store=tmp_path / "s.db", patience=1.0, seed=1)
    assert report.status is headgate.RunStatus.HELD
    assert (report.done, report.failed, report.held) == (0, 0, rows)
    (resource,) = report.resources
    assert set(resource.outcomes) == {"connection_error"}
    assert resource.requests <= 40, "thousands of connections were tried"
    assert "openai/m" in str(report)
    assert any("openai/m" in notice and "onnection" in notice for notice in report.notices), str(report)
    assert "run it again" in str(report)


async def test_a8_headers_tell_the_gate_what_nobody_configured() -> None:
    """A8: the rate in the headers of ordinary answers keeps the run below it, so nothing is ever rejected."""
    served = ModelSpec(
        requests_per_minute=1200, request_burst=20, latency=QUICK, output_tokens=TEN, headers=Dialect.OPENAI
    )
    async with WarmProvider(spec(m=served)) as provider, asking(provider.base_url) as ask:
        report = await headgate.arun(one_column(ask), 80, seed=1)
        assert all_done(report, 80)
        stats = provider.stats().models["m"]
    assert stats.statuses == {"200": 80}
    agree(report, "m", stats)


async def test_a_request_of_another_model_inside_a_body_is_counted_for_that_model() -> None:
    """A2, S1: a body with a second request by hand: both models' books agree, no lease is left over."""
    rows = 30
    models = {name: ModelSpec(concurrency=4, latency=QUICK, output_tokens=TEN) for name in ("m", "other")}
    async with WarmProvider(spec(**models)) as provider, asking(provider.base_url) as ask:
        pipeline = headgate.Pipeline("nested")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            first = await ask("m", f"answer number {row} now")
            async with headgate.request("openai/other", tokens=4) as lease:
                response = await ask.client.chat.completions.with_raw_response.create(
                    model="other", messages=[{"role": "user", "content": f"check number {row} now"}]
                )
                completion = response.parse()
                lease.report(status=response.status_code, headers=response.headers, usage=completion.usage)
            return first + (completion.choices[0].message.content or "")

        limits = {"openai/m": {"concurrency": 4}, "openai/other": {"concurrency": 2}}
        async with headgate.Engine(limits=limits) as engine:
            run = await engine.start(pipeline, rows)
            report = await run.wait()
            assert all_done(report, rows)
            assert engine.admission.gate.leases() == 0
            engine.admission.gate.check()
        stats = provider.stats().models
    assert stats["other"].in_flight_max <= 2
    agree(report, "m", stats["m"])
    agree(report, "other", stats["other"])
