"""One provider process serves several specifications, one after the other, and says how busy each was."""

from __future__ import annotations

import anyio
import pytest
from openai import AsyncOpenAI, RateLimitError

from headgate.testing.provider import Change, Latency, ModelSpec, ProviderSpec
from tests.integration.warm_servers import WarmProvider


@pytest.fixture
def anyio_backend() -> str:
    """OpenAI's client is tested on the loop that it is mostly used on."""
    return "asyncio"


def spec(**models: ModelSpec) -> ProviderSpec:
    return ProviderSpec(models=models, seed=1)


async def ask(client: AsyncOpenAI, model: str) -> None:
    await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Why?"}])


async def test_another_specification_starts_with_a_new_clock_and_empty_books() -> None:
    refusing = ModelSpec(concurrency=1, script=(Change(at_s=2.0, concurrency=0),), latency=Latency(mean_s=0.01))
    async with WarmProvider(spec(m=refusing)) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client:
            await ask(client, "m")
            await anyio.sleep(2.05)
            with pytest.raises(RateLimitError):
                await ask(client, "m")
            assert sum(one.rejected for one in provider.timeline("m")) == 1
            provider.replace(spec(m=refusing, other=ModelSpec()))
            assert provider.stats().models["m"].requests == 0
            await ask(client, "m")
            await ask(client, "other")
        stats = provider.stats().models
        assert stats["m"].statuses == {"200": 1}
        slices = provider.timeline("m")
    assert sum(one.accepted for one in slices) == 1
    assert sum(one.busy_s for one in slices) == pytest.approx(stats["m"].busy_s)


async def test_requests_in_flight_are_not_left_behind() -> None:
    async with WarmProvider(spec(m=ModelSpec(latency=Latency(mean_s=0.5)))) as provider:
        async with (
            AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as client,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ask, client, "m")
            while not provider.stats().models["m"].in_flight:  # noqa: ASYNC110  (it is in another process)
                await anyio.sleep(0.01)
            with pytest.raises(ValueError, match="in flight"):
                provider.replace(spec(m=ModelSpec()))
        assert provider.stats().models["m"].statuses == {"200": 1}
        provider.replace(spec(m=ModelSpec()))
        assert provider.stats().models["m"].requests == 0


async def test_nonsense_is_refused() -> None:
    async with WarmProvider(spec(m=ModelSpec())) as provider:
        wrong = ProviderSpec.model_construct(models={"m": ModelSpec.model_construct(concurrency=-1)})
        with pytest.raises(ValueError, match="concurrency"):
            provider.replace(wrong)
        assert set(provider.stats().models) == {"m"}
