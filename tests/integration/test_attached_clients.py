"""Attached clients, the real packages: each attempt on the wire is one lease, hidden retries and streams included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import headgate
from headgate.testing.provider import Dialect, ProviderProcess
from tests.integration import attached as ways
from tests.integration.warm_servers import WarmProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = {"openai_sdk": 200, "openai_stream": 200}
FEWER = 60
LIMITS = {"openai/m": {"concurrency": "1-16-32"}}

ASYNC = [
    ways.openai_sdk,
    ways.openai_stream,
    ways.openai_old_httpx,
    ways.anthropic_sdk,
    ways.anthropic_stream,
    ways.plain_httpx,
    ways.plain_httpx2,
    ways.aiohttp_session,
    ways.aiohttp_stream,
    ways.openai_on_aiohttp,
]
BLOCKING = [
    ways.openai_blocking,
    ways.openai_blocking_stream,
    ways.anthropic_blocking_stream,
    ways.httpx_blocking,
]


@pytest.fixture
def anyio_backend() -> str:
    """aiohttp and the SDKs' own helpers want asyncio; trio has a test of its own."""
    return "asyncio"


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    """One process for all tests, that each of them replaces by the provider that it needs."""
    with WarmProvider(ways.served()) as running:
        yield running


def name_of(way: Any) -> str:
    return str(way.__name__)


def dialect_of(way: Any) -> Dialect:
    return Dialect.ANTHROPIC if "anthropic" in name_of(way) else Dialect.OPENAI


async def run_over(pipeline: headgate.Pipeline, rows: int, store: headgate.MemoryStore) -> headgate.RunReport:
    """Run it and see that no lease is left."""
    async with headgate.Engine(limits=LIMITS, seed=1, store=store) as engine:
        run = await engine.start(pipeline, rows, thread_workers=40)
        report = await run.wait()
        assert engine.admission.gate.leases() == 0
        engine.admission.gate.check()
    assert (report.done, report.failed, report.held) == (rows, 0, 0), str(report)
    return report


@pytest.mark.parametrize("way", ASYNC, ids=name_of)
async def test_t15_hidden_retries(provider: ProviderProcess, way: Any) -> None:
    """T15, A2: what the client retries inside one call is counted, admitted and credited, attempt by attempt."""
    rows, store = ROWS.get(name_of(way), FEWER), headgate.MemoryStore()
    provider.replace(ways.served(headers=dialect_of(way)))
    async with way(provider) as ask:
        pipeline = headgate.Pipeline("attached")

        @pipeline.column(model="openai/m")
        async def answer(row: int) -> str:
            return str(await ask(ways.prompt_of(row)))

        report = await run_over(pipeline, rows, store)
    all_counted(report, provider, store, rows)


@pytest.mark.parametrize("way", BLOCKING, ids=name_of)
async def test_t15_hidden_retries_in_threads(provider: ProviderProcess, way: Any) -> None:
    """T15, A2: the same for clients that block, in columns that are plain functions."""
    rows, store = FEWER, headgate.MemoryStore()
    provider.replace(ways.served(headers=dialect_of(way)))
    with way(provider) as ask:
        pipeline = headgate.Pipeline("attached")

        @pipeline.column(model="openai/m")
        def answer(row: int) -> str:
            return str(ask(ways.prompt_of(row)))

        report = await run_over(pipeline, rows, store)
    all_counted(report, provider, store, rows)


def all_counted(report: headgate.RunReport, provider: ProviderProcess, store: headgate.MemoryStore, rows: int) -> None:
    stats = provider.stats().models["m"]
    assert stats.statuses.get("429", 0) >= 1, "nothing had to be retried"
    assert stats.accepted_again == 0
    ways.agree(report, stats)
    assert ways.credited(store, "attached") == ways.all_credited(rows)
