"""Analysis services over real HTTP: a real client, a service in another process, and everything it may do wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx2
import pytest

from headgate.errors import ConfigError
from headgate.restart import (
    Answer,
    Cause,
    Cycle,
    Failure,
    FailureCount,
    HttpSource,
    InvalidAnswer,
    Ledger,
    RestartConfig,
    RestartCoordinator,
    SourceUnreachable,
    TaskId,
    Verdict,
    configured_sources,
)
from headgate.restart import http as restart_http
from headgate.storage import MemoryStore
from headgate.testing.analysis import AnalysisProcess, AnalysisSpec
from tests.integration.warm_servers import WarmAnalysis

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

LEDGER = Ledger((FailureCount("summary", "invalid_output", 7),), ("openai/gpt-x",), (), (TaskId(3, "summary"),))
CYCLE = Cycle("tickets-1/ü-1", "tickets", 1, Failure(Cause("crash"), ledger=LEDGER))


@pytest.fixture(scope="module")
def process() -> Generator[AnalysisProcess]:
    with WarmAnalysis() as running:
        yield running


@pytest.fixture
def service(process: AnalysisProcess) -> AnalysisProcess:
    process.behave(AnalysisSpec())
    process.forget()
    return process


@pytest.fixture
async def client() -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient() as made:
        yield made


@pytest.mark.parametrize("verdict", ["restart", "stop", "quarantine"])
async def test_a_verdict_is_read_once_it_is_there(
    service: AnalysisProcess, client: httpx2.AsyncClient, verdict: Verdict
) -> None:
    tasks = (TaskId(3, "summary"),) if verdict == "quarantine" else ()
    service.behave(AnalysisSpec(verdict=verdict, tasks=tasks, seconds=3600, reason="saw it"))
    source = HttpSource(service.url, client)
    await source.trigger(CYCLE)
    assert await source.read(CYCLE) is None
    service.behave(AnalysisSpec(verdict=verdict, tasks=tasks, seconds=0, reason="saw it"))
    assert await source.read(CYCLE) == Answer(Verdict(verdict), tasks, "saw it")


async def test_a_verdict_that_is_pending_is_none(service: AnalysisProcess, client: httpx2.AsyncClient) -> None:
    source = HttpSource(service.url, client)
    await source.trigger(CYCLE)
    service.behave(AnalysisSpec(body='{"verdict": "pending"}'))
    assert await source.read(CYCLE) is None


async def test_triggering_again_is_one_analysis_and_a_service_that_forgot_is_told_again(
    service: AnalysisProcess, client: httpx2.AsyncClient, anyio_backend: str
) -> None:
    """R2: the id of the cycle is the key; and a restarted service is no reason to wait for the timeout."""
    source = HttpSource(f"{service.url}/", client)
    cycle = Cycle(f"again on {anyio_backend}", "tickets", 1, Failure(Cause("crash")))
    await source.trigger(cycle)
    await source.trigger(cycle)
    service.forget()
    assert await source.read(cycle) is None
    assert await source.read(cycle) == Answer(Verdict.RESTART, reason="looked at the logs")
    assert service.account().triggers[cycle.id] == 3


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (AnalysisSpec(trouble="drops"), "RemoteProtocolError"),
        (AnalysisSpec(trouble="hangs"), "within 0.3 s"),
        (AnalysisSpec(status=500), "answered 500: trouble"),
        (AnalysisSpec(status=429), "answered 429"),
    ],
)
async def test_what_may_pass_is_unreachable(
    service: AnalysisProcess, client: httpx2.AsyncClient, spec: AnalysisSpec, said: str
) -> None:
    source = HttpSource(service.url, client, request_timeout_s=0.3)
    service.behave(spec)
    for call in (source.trigger, source.read):
        with pytest.raises(SourceUnreachable, match=said):
            await call(CYCLE)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (AnalysisSpec(trouble="redirects"), "answered 307.*redirects are not followed"),
        (AnalysisSpec(trouble="huge"), "more than 262144 bytes"),
        (AnalysisSpec(trouble="compressed"), "compressed"),
        (AnalysisSpec(trouble="other_cycle"), "about cycle 'another'"),
        (AnalysisSpec(status=403), "answered 403"),
        (AnalysisSpec(body="<html>"), "Invalid JSON"),
        (AnalysisSpec(body="[]"), "no verdict"),
        (AnalysisSpec(body="{}"), "verdict: Field required"),
        (AnalysisSpec(body='{"verdict": "explode"}'), "verdict: Input should be"),
        (AnalysisSpec(body='{"verdict": "quarantine"}'), "0 tasks"),
        (AnalysisSpec(body='{"verdict": "stop", "tasks": [{"row": 1, "column": "x"}]}'), "1 tasks"),
        (AnalysisSpec(body='{"verdict": "quarantine", "tasks": [{"row": -1, "column": "x"}]}'), "row -1"),
        (AnalysisSpec(body='{"verdict": "restart", "reason": 5}'), "reason"),
    ],
)
# On trio the client's own generators complain when a response is left before its end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_what_makes_no_sense_is_invalid(
    service: AnalysisProcess, client: httpx2.AsyncClient, spec: AnalysisSpec, said: str
) -> None:
    source = HttpSource(service.url, client)
    await source.trigger(CYCLE)
    service.behave(spec.model_copy(update={"only_reads": True}))
    with pytest.raises(InvalidAnswer, match=said):
        await source.read(CYCLE)


async def test_nobody_there_is_unreachable(client: httpx2.AsyncClient) -> None:
    with WarmAnalysis() as gone:
        source = HttpSource(gone.url, client)
    with pytest.raises(SourceUnreachable, match="ConnectError"):
        await source.trigger(CYCLE)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_eight_replicas_ask_one_service_and_get_one_analysis(service: AnalysisProcess) -> None:
    """R2, T57: over real HTTP, each replica with a client of its own."""
    service.behave(AnalysisSpec(verdict=Verdict.STOP, seconds=0.3))
    store, actions, entered, all_are_in = MemoryStore(), set[str](), list[int](), anyio.Event()
    config = RestartConfig(service_url=service.url, rules=False, poll=0.05)
    before = len(service.account().triggers)

    async def life(number: int) -> None:
        async with (
            configured_sources(config) as sources,
            RestartCoordinator("tickets", store, sources=sources, config=config, replica=str(number)) as replica,
        ):
            await replica.enter()
            entered.append(number)
            if len(entered) == 8:
                all_are_in.set()
            await all_are_in.wait()
            replica.failed(Failure(Cause("crash")))
            actions.add((await replica.decision()).action)
            await anyio.sleep(0.2)

    async with anyio.create_task_group() as replicas:
        for number in range(8):
            replicas.start_soon(life, number)
    assert actions == {"told_to_stop"}
    triggers = service.account().triggers
    assert len(triggers) == before + 1
    assert sum(count for cycle, count in triggers.items() if cycle.startswith("tickets-")) >= 8


async def test_sources_are_made_from_the_configuration(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RestartConfig(service_url="http://one/base", http_urls=("https://two:8443",))
    async with configured_sources(config, client=client) as sources:
        assert [source.name for source in sources] == ["rules", "http one/base", "http two:8443"]
    async with configured_sources(RestartConfig(rules=False)) as none:
        assert none == ()

    def missing(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(restart_http, "import_module", missing)
    with pytest.raises(ConfigError, match=r"headgate\[http\]"):
        async with configured_sources(config):
            pass
