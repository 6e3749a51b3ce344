"""The engine: one admission controller and one store, shared by the runs that it starts."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Self, Unpack

import anyio

from ..admission.controller import AdmissionController
from ..errors import ConfigError, HeadgateError
from ..export import RunResults
from ..salvage.classify import Classifier, CustomClassifier
from ..salvage.policy import SalvagePolicy
from ..salvage.salvage import Salvage
from ..scheduler.frontier import Task
from ..storage.memory import MemoryRun
from ..storage.opening import open_store
from ..storage.ports import RunStore
from .core import RunCore
from .intake import Intake
from .jobs import ThreadRunner, worker_threads
from .keeping import begin_with
from .loop import RunLoop
from .meter import Meter
from .open_rows import OpenRows
from .options import RunKeywords, RunOptions
from .plan import plan_columns
from .records import Records
from .requests import Outside, Requester, Sender, requester
from .resuming import open_run
from .rows import RowId, Rows, RowSource
from .runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from anyio.abc import TaskGroup

    from ..admission.limits import LimitsSource
    from .pipeline import Pipeline

__all__ = ["Engine", "StoreSource"]

StoreSource = str | os.PathLike[str] | RunStore | None
"""Where results go: a path (a SQLite file), a ``postgresql://`` address, a store, or None for memory."""


class Engine:
    """Runs pipelines under shared limits. An async context manager::

        async with headgate.Engine(limits="limits.toml", store="tickets.db") as engine:
            run = await engine.start(pipeline, rows)
            async for row in run.rows():
                ...
            report = await run.wait()

    ``limits`` and ``store`` are as for :func:`headgate.run`. ``classify`` is asked first about every exception of a
    column body. ``seed`` makes jitter repeatable; ``threads`` runs blocking functions (default: worker threads).
    Leaving the context stops the runs that are still going.
    """

    def __init__(
        self,
        *,
        limits: LimitsSource = None,
        store: StoreSource = None,
        classify: CustomClassifier | None = None,
        seed: int | None = None,
        threads: ThreadRunner | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.admission = AdmissionController(limits, seed=seed, wall_clock=wall_clock)
        self.store: RunStore = open_store(store)
        self._owns_store = self.store is not store
        self._store_source = store
        self._classifier = Classifier(classify)
        self._rng = random.Random(seed)
        self._wall_clock = wall_clock
        self._threads = threads
        self._tasks: TaskGroup | None = None
        self._runs: dict[str, Run] = {}
        self._around: Requester | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.store.probe()
        except BaseException:
            await self._close_store()  # nobody will leave a context that was never entered
            raise
        await self.admission.__aenter__()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._around = requester.get()
        requester.set(Outside(Sender(self.admission, self._classifier, Meter(anyio.current_time()), "engine")))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        requester.set(self._around)  # an engine inside another one, or inside a column body, was only its guest
        try:
            if kind is None:
                await self._finish_runs()
        finally:
            # The groups hold no errors of their own: runs keep theirs for wait(). So the caller's passes as it is.
            try:
                self._tasks.cancel_scope.cancel()
                await self._tasks.__aexit__(None, None, None)
            finally:
                try:
                    await self.admission.__aexit__(None, None, None)
                finally:
                    await self._close_store()

    async def start(
        self,
        pipeline: Pipeline,
        rows: Rows,
        *,
        run: str | None = None,
        row_id: RowId = None,
        argument: str | None = None,
        **options: Unpack[RunKeywords],
    ) -> Run:
        """Start ``pipeline`` over ``rows`` and return the run in progress.

        ``run`` names it in the store (default: the pipeline's name); a run of that name that the store already has
        is resumed. ``row_id`` names the field that identifies a row, or computes it; else the position does.
        ``options`` are those of :class:`~headgate.engine.options.RunOptions`.

        Raises before anything is sent: PipelineError, InputError, ConfigError, AdmissionDenied for a model that the
        limits do not know, StoreError.
        """
        if self._tasks is None:
            raise HeadgateError("enter the engine first: async with headgate.Engine(...) as engine")
        settings = RunOptions.of(options)
        name = run or pipeline.name
        if name in self._runs and not self._runs[name].done:
            raise ConfigError(f"a run named {name!r} is going on in this engine: give this one another name")
        source = RowSource(rows, row_id=row_id, argument=argument)
        graph = pipeline.compile(source.first_fields)
        source.require(graph.input_fields, {c.spec.name: c.spec.required() for c in pipeline.columns})
        plans = plan_columns(pipeline, graph)
        for plan in plans:
            if plan.resource is not None:
                self.admission.register(plan.resource)
        handle, notices = await open_run(self.store, name, pipeline.columns, settings.on_change)
        begin_with(self.admission, handle.learned, self._wall_clock())
        policy = SalvagePolicy(
            max_attempts=settings.max_attempts,
            max_output_attempts=settings.max_output_attempts,
            patience_s=settings.patience,
        )
        open_rows = OpenRows(plans)
        core = RunCore(
            graph,
            plans,
            open_rows=open_rows,
            records=Records(open_rows.journal, plans, self._wall_clock),
            salvage=Salvage[Task](policy, rng=random.Random(self._rng.random())),
            finish_siblings=settings.finish_siblings,
            group_size=settings.group_size,
            patience_s=settings.patience,
        )
        intake = Intake(source, core, handle, self.admission, settings, wall_clock=self._wall_clock)
        loop = RunLoop(
            name,
            core,
            intake,
            controller=self.admission,
            classifier=self._classifier,
            handle=handle,
            options=settings,
            threads=self._threads or worker_threads(settings.thread_workers),
            wall_clock=self._wall_clock,
            results=RunResults(self.store, name, tuple(plan.name for plan in plans)),
            resume_hint=self._resume_hint(name),
            notices=notices,
            # Nobody named a store, so nobody asks it for rows that were handed out: a long run must not pile them up.
            forget=handle.forget if self._store_source is None and isinstance(handle, MemoryRun) else None,
        )
        started = Run(loop)
        self._runs[name] = started
        self._tasks.start_soon(loop.main)
        return started

    async def _close_store(self) -> None:
        if self._owns_store:
            with anyio.CancelScope(shield=True):
                await self.store.aclose()

    async def _finish_runs(self) -> None:
        for run in self._runs.values():
            if not run.done:
                run.stop()
            await run.ended()

    def _resume_hint(self, name: str) -> str:
        if self._store_source is None:
            return "results were kept in memory only: give a store= to be able to resume"
        place = self._store_source
        if not isinstance(place, (str, os.PathLike)) or "://" in str(place):  # an address may hold a password
            place = "the same store"
        return f"resume: run it again with store={str(place)!r} and run={name!r}; finished cells cost nothing"
