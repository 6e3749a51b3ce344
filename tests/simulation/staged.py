"""A provider, a run on it and what was seen of both, for tests in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

import headgate
from headgate.testing import (
    ModelSpec,
    ProviderSpec,
    VirtualProvider,
)
from tests.simulation.simulated import covered

if TYPE_CHECKING:
    from headgate.testing.provider import ModelStats

Build = Callable[[VirtualProvider], headgate.Pipeline]
Look = Callable[[headgate.Engine, headgate.Run], None]


@dataclass
class Stage:
    """A provider and a store; each ``run`` is one life of a run on them, all in one stretch of virtual time."""

    spec: ProviderSpec
    build: Build
    limits: dict[str, dict[str, object]] | None = None
    store: headgate.MemoryStore = field(default_factory=headgate.MemoryStore)
    look_every_s: float = 0.2371  # odd, so that it never meets the instant at which something happens

    def __post_init__(self) -> None:
        self.provider = VirtualProvider(self.spec, network_s=0.0)
        self.pipeline = self.build(self.provider)

    async def run(self, rows: object, *, look: Look | None = None, **options: object) -> headgate.RunReport:
        engine = headgate.Engine(limits=self.limits, store=self.store, seed=1, wall_clock=self.provider.wall_s)
        began_at = anyio.current_time()
        reports: list[headgate.RunReport] = []
        async with engine, anyio.create_task_group() as tasks:
            run = await engine.start(self.pipeline, rows, **options)  # type: ignore[arg-type]
            if look is not None:
                tasks.start_soon(self._look, look, engine, run)
            reports.append(await run.wait())
            tasks.cancel_scope.cancel()
        (report,) = reports
        engine.admission.gate.check()
        assert engine.admission.gate.leases() == 0
        covered.update(seconds=round(anyio.current_time() - began_at), runs=1)
        return report

    async def _look(self, look: Look, engine: headgate.Engine, run: headgate.Run) -> None:
        while True:
            look(engine, run)
            await anyio.sleep(self.look_every_s)

    def stats(self, model: str = "m") -> ModelStats:
        return self.provider.stats().models[model]


def provider_spec(**models: ModelSpec) -> ProviderSpec:
    return ProviderSpec(models=models, seed=11)


def ask(provider: VirtualProvider, model: str = "m") -> Callable[[int], Awaitable[str]]:
    async def asking(row: int) -> str:
        answer = await provider.chat(model, f"{model} asks about {row}.")
        return answer.text

    return asking


def one_column(provider: VirtualProvider) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("one")
    pipeline.column(ask(provider), name="a", model="acme/m")
    return pipeline


def two_models(provider: VirtualProvider) -> headgate.Pipeline:
    """Two independent columns, each with a model of its own."""
    pipeline = headgate.Pipeline("two")
    pipeline.column(ask(provider, "m"), name="a", model="acme/m")
    pipeline.column(ask(provider, "n"), name="b", model="acme/n")
    return pipeline


def chained(provider: VirtualProvider, second: str) -> headgate.Pipeline:
    """A column, and one that asks about its answers."""
    pipeline = headgate.Pipeline("chained")
    pipeline.column(ask(provider), name="a", model="acme/m")

    @pipeline.column(model=f"acme/{second}")
    async def b(a: str) -> str:
        return (await provider.chat(second, f"And what of {a}?")).text

    return pipeline
