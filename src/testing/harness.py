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

from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack, cast

import anyio

from ..engine.engine import Engine
from ..engine.options import RunKeywords, RunOptions
from ..engine.report import RunReport, RunStatus
from ..salvage.classify import Classifier
from .clock import run_virtual, seeded_trio
from .inspector import Inspector
from .provider.spec import Capacity, Faults, ModelSpec, ProviderSpec
from .provider.virtual import VirtualProvider
from .scenario import Cancel, Interruption, Leave, Scenario, Stop, Surroundings, arriving, build_pipeline, directly
from .told import Told
from .witness import PromiseBroken, Witness, WitnessStore, expect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..admission.limits_book import LimitsSource
    from ..engine.pipeline import Pipeline
    from ..engine.rows import Rows
    from ..engine.runs import Run
    from ..salvage.classify import CustomClassifier
    from .provider.values import ProviderStats

__all__ = ["PromiseBroken", "SimulationReport", "check_pipeline", "check_scenario"]

Backend = Literal["asyncio", "trio"]
RowsSource: TypeAlias = "Sequence[object] | int | Callable[[], Rows]"
_UNDISTURBED = Surroundings()

LIFE_MAX_S = 7 * 86_400.0
"""Longer than any life that patience, stall timeout and the slowest source together can explain."""
LIVES_WITHOUT_PROGRESS = 3
"""Lives in a row that may end without any new outcome once the provider is well: with little patience a task may be
given up before the time that it was held for in an earlier life has come."""

_FINISHED = frozenset({RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_FAILURES})


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What a simulation came to. ``reports`` has one per life that was not cancelled; the last one is complete.

    ``seconds`` are virtual. ``starts`` counts body calls, ``checks`` how often every invariant was looked at.
    ``decisions`` is a digest of everything that was decided: equal for equal seeds.
    """

    lives: int
    reports: tuple[RunReport, ...]
    provider: ProviderStats
    seconds: float
    starts: int
    checks: int
    decisions: str

    @property
    def final(self) -> RunReport:
        """The report of the last life, in which every row has ended."""
        return self.reports[-1]

    def __str__(self) -> str:
        return (
            f"{self.lives} lives, {self.seconds:.1f} virtual seconds, {self.starts} body calls, {self.checks} checks, "
            f"decisions {self.decisions}\n{self.final}"
        )


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
        stage = _Stage(
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

    async def _live(self, stage: _Stage, interruption: Interruption | None) -> None:
        if stage.finished:
            return
        stage.begin()
        # Every other simulation is listened to: what a run decides must not depend on it, nor need it.
        told = Told(stage.witness.committed) if self._seed % 2 else None
        life = _Life(stage, self._around, interruption, told)
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


class _Stage:
    """What outlives a life: the provider, the store, the witness, and the reports so far."""

    def __init__(self, pipeline: Pipeline, provider: VirtualProvider, witness: Witness, store: WitnessStore) -> None:
        self.pipeline = pipeline
        self.provider = provider
        self.witness = witness
        self.store = store
        self.lives = 0
        self.checks = 0
        self.whole_before: set[int] = set()
        self.reports: list[RunReport] = []

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.pipeline.columns)

    @property
    def last(self) -> RunReport | None:
        return self.reports[-1] if self.reports else None

    @property
    def finished(self) -> bool:
        return self.last is not None and self.last.status in _FINISHED

    def begin(self) -> None:
        self.lives += 1
        self.whole_before = self.witness.whole_rows(self.columns)
        self.witness.begin_life()

    def report(self) -> SimulationReport:
        stats = self.provider.stats()
        told = (self.witness.events, stats, [str(report) for report in self.reports])
        return SimulationReport(
            lives=self.lives,
            reports=tuple(self.reports),
            provider=stats,
            seconds=anyio.current_time(),
            starts=self.witness.starts.total(),
            checks=self.checks,
            decisions=blake2b(repr(told).encode(), digest_size=8).hexdigest(),
        )


class _Life:
    """One life of the run, from opening it to its end, however it comes."""

    def __init__(
        self, stage: _Stage, around: Surroundings, interruption: Interruption | None, told: Told | None
    ) -> None:
        self._told = told
        self._stage = stage
        self._around = around
        self._interruption = interruption
        self._run: Run | None = None
        self._error: Exception | None = None

    async def go(self, engine: Engine, rows: Rows, options: RunKeywords) -> None:
        """Start the run and see it through, or to its interruption."""
        run = self._run = await engine.start(self._stage.pipeline, rows, **options)
        inspector = Inspector(
            engine, run, self._stage.provider, RunOptions.of(cast("dict[str, object]", options)), seed=self._stage.lives
        )
        self._stage.witness.look = inspector.look
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._inspect, inspector, tasks.cancel_scope)
            if isinstance(self._interruption, Stop):
                tasks.start_soon(_stop_later, run, self._interruption)
            try:
                await self._follow(run)
            except Exception as error:  # told when the tasks around it have ended, without their group
                self._error = error
            tasks.cancel_scope.cancel()
        self._stage.checks += inspector.checks

    async def _follow(self, run: Run) -> None:
        leave_after = self._interruption.at_s if isinstance(self._interruption, Leave) else LIFE_MAX_S
        with anyio.move_on_after(leave_after):
            if self._around.reader_s is not None:
                async with aclosing(run.rows()) as rows:
                    async for row in rows:
                        self._stage.witness.received(row, self._stage.columns)
                        await anyio.sleep(self._around.reader_s)
            await run.wait()

    async def _inspect(self, inspector: Inspector, scope: anyio.CancelScope) -> None:
        try:
            await inspector.watch()
        except Exception as error:  # broken promises, and the assertions of check()
            self._error = error
            scope.cancel()

    async def end(self, engine: Engine, *, cancelled: bool) -> None:
        """Check what the life leaves behind; raise what went wrong in it."""
        witness, run = self._stage.witness, self._run
        witness.look = _nothing
        if witness.broken is not None:
            raise witness.broken
        if self._error is not None:
            raise self._error
        if run is None:
            return  # cancelled before there was a run
        self._check_empty(engine, run)
        if cancelled:
            expect(isinstance(self._interruption, Cancel), "V5", f"the run had no end after {LIFE_MAX_S:g} s")
            if self._told is not None:
                self._told.check(self._stage.columns, None)
            return
        report = await run.wait()
        report.check()
        witness.check_report(report, self._stage.columns, self._stage.whole_before)
        if self._told is not None:
            self._told.check(self._stage.columns, report)
        if self._around.reader_s is not None and not isinstance(self._interruption, Leave):
            witness.check_handed_out(report, self._stage.columns)
        self._stage.reports.append(report)

    def _check_empty(self, engine: Engine, run: Run) -> None:
        gate = engine.admission.gate
        gate.check()
        expect(run.done, "S7", "the engine was left and the run goes on")
        expect(run.in_flight == 0, "S7", f"{run.in_flight} tasks are in flight after the end")
        expect(gate.leases() == 0, "S7", f"{gate.leases()} leases are out after the end")
        for scope in gate.scopes().values():
            expect(scope.in_flight == 0, "S7", f"{scope.name} counts {scope.in_flight} in flight after the end")
            expect(not scope.waiting, "S7", f"{scope.name} has waiters after the end")
        for name, model in self._stage.provider.stats().models.items():
            expect(model.in_flight == 0, "S7", f"{name} still works on {model.in_flight} requests after the end")


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


async def _stop_later(run: Run, stop: Stop) -> None:
    await anyio.sleep(stop.at_s)
    run.stop(grace=stop.grace_s)


def _nothing() -> None:
    """Nobody looks."""


def _difference(one: Witness, other: Witness) -> str:
    for place, (event, again) in enumerate(zip(one.events, other.events, strict=False)):
        if event != again:
            return f"event {place} was {event}, and {again} when it was all done again"
    return f"{len(one.events)} events, and {len(other.events)} when it was all done again, or the accounts differ"
