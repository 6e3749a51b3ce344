"""The provider in process, on virtual time and both loops: latency, limits, faults as a client sees them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest

from headgate.testing.clock import DeadlockError, run_virtual
from headgate.testing.provider import (
    Answer,
    Capacity,
    Dialect,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderResponseError,
    ProviderSpec,
    RetryAfter,
    VirtualProvider,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Backend = Literal["asyncio", "trio"]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


def _provider(network_s: float = 0.04, **capacity: Any) -> VirtualProvider:
    plain = ModelSpec(latency=Latency(mean_s=5), output_tokens=OutputTokens(mean=3))
    spec = plain.changed_by(Capacity(**capacity))
    return VirtualProvider(ProviderSpec(models={"m": spec}), network_s=network_s)


def _failure(provider: VirtualProvider, backend: Backend, kind: type[Exception]) -> tuple[Exception, float]:
    """Ask once, and return the error with the virtual time at which it came."""

    async def program() -> tuple[Exception, float]:
        with pytest.raises(kind) as caught:
            await provider.chat("m", "Why is it so?")
        return caught.value, anyio.current_time()

    return run_virtual(program, backend=backend)


def test_an_answer_takes_the_network_and_the_latency(backend: Backend) -> None:
    provider = _provider()

    async def program() -> tuple[Answer, float]:
        return await provider.chat("m", "Why is it so?"), anyio.current_time()

    answer, took = run_virtual(program, backend=backend)
    assert took == pytest.approx(5.08)
    assert (answer.status, answer.usage.input_tokens, answer.usage.output_tokens) == (200, 4, 3)
    assert answer.text.endswith("Why is")
    assert answer.headers["date"] == "Tue, 14 Nov 2023 22:13:25 GMT"


def test_half_a_surrogate_pair_is_content_as_any_other(backend: Backend) -> None:
    """It failed in the provider's books, as if the caller had made a mistake."""
    provider = _provider()

    async def program() -> Answer:
        return await provider.chat("m", "Why \ud800?")

    assert run_virtual(program, backend=backend).status == 200
    assert (provider.count("m", "Why \ud800?").answered, provider.count("m", "Why \udfff?").answered) == (1, 0)


def test_a_schema_gives_json(backend: Backend) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}}

    async def program() -> str:
        return (await _provider().chat("m", "Count", json_schema=schema)).text

    assert json.loads(run_virtual(program, backend=backend)) == {"n": 3}


def test_a_rejection_comes_after_one_round_trip_with_headers(backend: Backend) -> None:
    provider = _provider(requests_per_minute=0, headers=Dialect.OPENAI, retry_after=RetryAfter.SECONDS, retry_after_s=7)
    error, took = _failure(provider, backend, ProviderResponseError)
    assert took == pytest.approx(0.08)
    assert isinstance(error, ProviderResponseError)
    assert error.status_code == error.response.status_code == 429
    assert error.headers["retry-after"] == error.response.headers["retry-after"] == "7"
    assert error.headers["x-ratelimit-remaining-requests"] == "0"
    assert error.response.json() == error.body


def test_faults_look_as_from_a_client_library(backend: Backend) -> None:
    error, took = _failure(_provider(faults=Faults(error_500=1)), backend, ProviderResponseError)
    assert getattr(error, "status_code", None) == 500
    assert took == pytest.approx(5.08)
    _failure(_provider(faults=Faults(reset=1)), backend, ConnectionResetError)
    _failure(_provider(faults=Faults(malformed=1)), backend, json.JSONDecodeError)
    error, took = _failure(_provider(faults=Faults(unauthorized=1)), backend, ProviderResponseError)
    assert took == pytest.approx(0.08)


def test_a_hang_holds_its_slot_until_the_caller_leaves(backend: Backend) -> None:
    provider = _provider(concurrency=1, faults=Faults(hang=1))

    async def program() -> None:
        with anyio.move_on_after(100) as scope:
            await provider.chat("m", "Why?")
        assert scope.cancelled_caught
        assert provider.stats().models["m"].in_flight == 0
        provider.change("m", Capacity(faults=Faults()))
        await provider.chat("m", "Why?")

    run_virtual(program, backend=backend)
    stats = run_virtual(_stats_of(provider), backend=backend)
    assert stats == {"left": 1, "200": 1}

    with pytest.raises(DeadlockError):
        run_virtual(_provider(faults=Faults(hang=1)).chat, "m", "Why?", backend=backend)


def _stats_of(provider: VirtualProvider) -> Callable[[], Awaitable[dict[str, int]]]:
    async def read() -> dict[str, int]:
        await anyio.sleep(1000)
        return dict(provider.stats().models["m"].statuses)

    return read


def test_many_callers_never_exceed_the_concurrency_and_every_request_is_in_the_account(
    backend: Backend,
) -> None:
    provider = _provider(concurrency=8, latency=Latency(mean_s=1, sigma=1), faults=Faults(error_500=0.2))
    done: list[str] = []

    async def caller(row: int) -> None:
        while True:
            try:
                done.append((await provider.chat("m", f"row {row}")).text)
            except ProviderResponseError:
                await anyio.sleep(0.5 + row * 1e-3)
            else:
                return

    async def program() -> None:
        async with anyio.create_task_group() as group:
            for row in range(100):
                group.start_soon(caller, row)
        stats = provider.stats().models["m"]
        assert stats.in_flight_max == 8
        assert stats.answered == len(done) == 100
        assert stats.answered_again == 0
        assert stats.rejected["concurrency"] == stats.statuses["429"] > 0
        assert stats.statuses["500"] == stats.faults["error_500"] > 0
        assert provider.count("m", "row 7").answered == 1

    run_virtual(program, backend=backend)
