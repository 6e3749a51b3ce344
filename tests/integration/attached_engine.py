"""An engine, and the client of a provider that is attached to it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import openai

import headgate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from headgate.testing.provider import ProviderProcess


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
