"""One life of a simulated run, from opening it to its end, and what outlives it.

What is checked when is said in :mod:`headgate.testing.harness`.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, cast

import anyio

from ..engine.options import RunKeywords, RunOptions
from ..engine.report import RunReport, RunStatus
from .inspector import Inspector
from .scenario import Cancel, Interruption, Leave, Stop, Surroundings
from .witness import Witness, expect

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.pipeline import Pipeline
    from ..engine.rows import Rows
    from ..engine.runs import Run
    from .provider.values import ProviderStats
    from .provider.virtual import VirtualProvider
    from .told import Told
    from .witness_store import WitnessStore

__all__ = ["LIFE_MAX_S", "Life", "SimulationReport", "Stage"]

LIFE_MAX_S = 7 * 86_400.0
"""Longer than any life that patience, stall timeout and the slowest source together can explain."""

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


class Stage:
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
        """The names of the columns, in order."""
        return tuple(column.name for column in self.pipeline.columns)

    @property
    def last(self) -> RunReport | None:
        """The report of the last life that had one."""
        return self.reports[-1] if self.reports else None

    @property
    def finished(self) -> bool:
        """Whether every row has ended."""
        return self.last is not None and self.last.status in _FINISHED

    def begin(self) -> None:
        """A life begins."""
        self.lives += 1
        self.whole_before = self.witness.whole_rows(self.columns)
        self.witness.begin_life()

    def report(self) -> SimulationReport:
        """What it all came to."""
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


class Life:
    """One life of the run, from opening it to its end, however it comes."""

    def __init__(
        self, stage: Stage, around: Surroundings, interruption: Interruption | None, told: Told | None
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
        witness.look_no_more()
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
            expect(not scope.parked, "S7", f"{scope.name} has waiters after the end")
        for name, model in self._stage.provider.stats().models.items():
            expect(model.in_flight == 0, "S7", f"{name} still works on {model.in_flight} requests after the end")


async def _stop_later(run: Run, stop: Stop) -> None:
    await anyio.sleep(stop.at_s)
    run.stop(grace=stop.grace_s)
