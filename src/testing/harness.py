"""A pipeline against a virtual provider in virtual time, with every promise of the engine checked on the way.

:func:`check_pipeline` is for pipelines of your own, :func:`check_scenario` for made-up ones
(:mod:`headgate.testing.strategies` makes them up). A simulation has two phases. In the first the provider misbehaves as
its spec says, and the run is stopped, cancelled and resumed as asked. In the second all faults have stopped, and the
run is resumed until every row has ended, which it must do in a few lives.

Checked at each start and end of a body, at each commit and at quiet moments in between: A1, S2, S3, S4, S6, D1, V1,
V3 and the invariants of every part; after each life S1, S7, V6; at the end V5; and by doing it all again S8. A promise
that does not hold raises :class:`PromiseBroken`, which names it; a lost wake-up is a
:class:`~headgate.testing.clock.DeadlockError`.

Prior art: the simulators of FoundationDB and TigerBeetle (a safety phase, then a liveness phase; a seed replays all).
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack, cast

import anyio

from ..engine.engine import Engine
from ..salvage.classify import Classifier
from .clock import run_virtual, seeded_trio
from .life import LIFE_MAX_S, Life, SimulationReport, Stage
from .provider.spec import Capacity, Faults, ModelSpec, ProviderSpec
from .provider.virtual import VirtualProvider
from .scenario import Cancel, Interruption, Scenario, Surroundings, arriving, build_pipeline, directly
from .told import Told
from .witness import PromiseBroken, Witness, expect
from .witness_store import WitnessStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..admission.limits_book import LimitsSource
    from ..engine.options import RunKeywords
    from ..engine.pipeline import Pipeline
    from ..engine.rows import Rows
    from ..salvage.classify import CustomClassifier

__all__ = ["PromiseBroken", "SimulationReport", "check_pipeline", "check_scenario"]

Backend = Literal["asyncio", "trio"]
RowsSource: TypeAlias = "Sequence[object] | int | Callable[[], Rows]"
_UNDISTURBED = Surroundings()

LIVES_WITHOUT_PROGRESS = 3
"""Lives in a row that may end without any new outcome once the provider is well: with little patience a task may be
given up before the time that it was held for in an earlier life has come."""


def check_scenario(scenario: Scenario, *, backend: Backend = "asyncio", replay: bool = True) -> SimulationReport:
    """Simulate a made-up ``scenario`` and check every promise. Raises as :func:`check_pipeline` does."""
    return check_pipeline(
        partial(build_pipeline, scenario.columns),
        scenario.rows,
        scenario.provider,
        limits=scenario.limits,
        surroundings=scenario.surroundings,
        seed=scenario.seed,
        backend=backend,
        replay=replay,
        **cast("RunKeywords", scenario.options),
    )


def check_pipeline(
    build: Callable[[VirtualProvider], Pipeline],
    rows: RowsSource,
    provider: ProviderSpec,
    *,
    limits: LimitsSource = None,
    surroundings: Surroundings = _UNDISTURBED,
    classify: CustomClassifier | None = None,
    seed: int = 0,
    backend: Backend = "asyncio",
    replay: bool = True,
    **options: Unpack[RunKeywords],
) -> SimulationReport:
    """Simulate your own pipeline against ``provider`` and check every promise that headgate makes about it.

    ``build`` makes the pipeline around the provider that it is given; the columns ask that one instead of a client.
    ``rows`` are as for :func:`headgate.run`, or a function that gives them anew for each life. ``surroundings`` says
    what happens meanwhile (stops, cancellations, a slow store, a slow reader), ``options`` are those of a run.
    With ``replay`` everything is done twice and must come out the same. On trio ``seed`` also shuffles the tasks.

    Raises PromiseBroken, DeadlockError, LivelockError, or what broke the run.

    >>> import headgate
    >>> from headgate.testing import Faults, Latency, ModelSpec, ProviderSpec, Stop, Surroundings, check_pipeline
    >>> def tickets(provider):
    ...     pipeline = headgate.Pipeline("tickets")
    ...     @pipeline.column(model="acme/small")
    ...     async def question(row: int) -> str:
    ...         return (await provider.chat("small", f"Ask about {row}.")).text
    ...     @pipeline.column(model="acme/small")
    ...     async def answer(question: str) -> str:
    ...         return (await provider.chat("small", question)).text
    ...     return pipeline
    >>> small = ModelSpec(concurrency=4, latency=Latency(mean_s=1), faults=Faults(reset=0.1))
    >>> spec = ProviderSpec(models={"small": small})
    >>> found = check_pipeline(tickets, 40, spec, surroundings=Surroundings(interruptions=(Stop(at_s=5),)))
    >>> found.final.done, found.lives
    (40, 2)
    """

    def simulate() -> tuple[SimulationReport, Witness]:
        with seeded_trio(seed) if backend == "trio" else nullcontext():
            return run_virtual(simulation.run, backend=backend)

    simulation = _Simulation(build, rows, provider, limits, surroundings, classify, seed, options)
    report, witness = simulate()
    if replay:
        again, other = simulate()
        expect(report.decisions == again.decisions, "S8", _difference(witness, other))
    return report


class _Simulation:
    """Everything that stays the same from life to life, and from one simulation to its replay."""

    def __init__(
        self,
        build: Callable[[VirtualProvider], Pipeline],
        rows: RowsSource,
        spec: ProviderSpec,
        limits: LimitsSource,
        surroundings: Surroundings,
        classify: CustomClassifier | None,
        seed: int,
        options: RunKeywords,
    ) -> None:
        self._build = build
        self._rows = rows
        self._spec = spec
        self._limits = limits
        self._around = surroundings
        self._classify = classify
        self._seed = seed
        self._options = options

    async def run(self) -> tuple[SimulationReport, Witness]:
        provider = VirtualProvider(self._spec)
        witness = Witness(Classifier(self._classify), provider.wall_s)
        stage = Stage(
            witness.watched(self._build(provider)),
            provider,
            witness,
            WitnessStore(witness, commit_s=self._around.commit_s, clock=provider.wall_s),
        )
        for interruption in (*self._around.interruptions, None):
            await self._live(stage, interruption)
        if not stage.finished:
            await self._heal(provider)
        stuck = 0
        while not stage.finished:
            before = len(witness.committed)
            await self._live(stage, None)
            stuck = 0 if len(witness.committed) > before else stuck + 1
            expect(stuck < LIVES_WITHOUT_PROGRESS, "V5", f"no cell ends though all faults have stopped:\n{stage.last}")
        return stage.report(), witness

    async def _heal(self, provider: VirtualProvider) -> None:
        """All faults stop, also those that the script has in store."""
        stats = provider.stats()
        if stats.now_s > 0:
            last = max((change.at_s for model in self._spec.models.values() for change in model.script), default=0.0)
            await anyio.sleep(max(0.0, last - stats.now_s) + 1.0)
        for name, model in self._spec.models.items():
            provider.change(name, self._around.healthy or _well(model))

    async def _live(self, stage: Stage, interruption: Interruption | None) -> None:
        if stage.finished:
            return
        stage.begin()
        # Every other simulation is listened to: what a run decides must not depend on it, nor need it.
        told = Told(stage.witness.committed) if self._seed % 2 else None
        life = Life(stage, self._around, interruption, told)
        engine = Engine(
            limits=self._limits,
            store=stage.store,
            classify=self._classify,
            seed=self._seed,
            threads=directly,
            events=told,
            wall_clock=stage.provider.wall_s,
        )
        cancel_after = interruption.at_s if isinstance(interruption, Cancel) else LIFE_MAX_S
        with anyio.move_on_after(cancel_after) as scope:
            async with engine:
                await life.go(engine, self._fresh_rows(), self._options)
        await life.end(engine, cancelled=scope.cancelled_caught)

    def _fresh_rows(self) -> Rows:
        source = self._rows
        rows: Rows = source() if callable(source) else source
        return arriving(rows, self._around.arrival_s) if self._around.arrival_s else rows


def _well(model: ModelSpec) -> Capacity:
    """The model as it was meant to be: no faults, and room for somebody."""
    return Capacity(
        concurrency=model.concurrency or None,
        requests_per_minute=model.requests_per_minute or None,
        tokens_per_minute=model.tokens_per_minute or None,
        input_tokens_per_minute=model.input_tokens_per_minute or None,
        output_tokens_per_minute=model.output_tokens_per_minute or None,
        faults=Faults(),
        latency=model.latency,
        reject=None,
    )


def _difference(one: Witness, other: Witness) -> str:
    for place, (event, again) in enumerate(zip(one.events, other.events, strict=False)):
        if event != again:
            return f"event {place} was {event}, and {again} when it was all done again"
    return f"{len(one.events)} events, and {len(other.events)} when it was all done again, or the accounts differ"
