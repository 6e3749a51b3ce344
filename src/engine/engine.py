"""The engine: one admission controller and one store, shared by the runs that it starts."""

from __future__ import annotations

import os
import random
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Self, Unpack, cast

import anyio

from ..admission.controller import AdmissionController
from ..control import open_control
from ..errors import ConfigError, HeadgateError
from ..salvage.classify import Classifier, CustomClassifier
from ..scheduler.window import HORIZON_FACTOR
from ..storage.opening import open_store
from ..storage.ports import RunStore
from .building import RunBuilder, require_fields
from .controls import Controls
from .keeping import begin_with
from .listeners import EventsSource, check_source, open_listeners
from .meter import Meter
from .options import RunKeywords, RunOptions
from .requests import Outside, Requester, Sender, requester
from .resuming import open_run
from .rows import RowId, Rows, RowSource
from .runs import Run
from .shared_part import SharedPart
from .sharing import GROUP_ROWS, ClaimedRun, check_shareable, join_run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from types import TracebackType

    from anyio.abc import TaskGroup

    from ..admission.limits_book import LimitsSource
    from ..control import ControlSocket
    from ..storage.ports import RunHandle
    from ..storage.sharing import Claim
    from .building import Blueprint
    from .jobs import ThreadRunner
    from .main_loop import RunLoop
    from .pipeline import Pipeline
    from .report import RunReport

__all__ = ["Engine", "StoreSource"]

StoreSource = str | os.PathLike[str] | RunStore | None
"""Where results go: a path (a SQLite file), a ``postgresql://`` address, a store, or None for memory."""

_ONCE = "an engine is entered once, and begins runs until it is left: make another one"


class Engine:
    """Runs pipelines under shared limits. An async context manager::

        async with headgate.Engine(limits="limits.toml", store="tickets.db") as engine:
            run = await engine.start(pipeline, rows)
            async for row in run.rows():
                ...
            report = await run.wait()

    ``limits`` and ``store`` are as for :func:`headgate.run`. ``classify`` is asked first about every exception of a
    column body. ``seed`` makes jitter repeatable; ``threads`` runs blocking functions (default: worker threads).
    ``control`` is the path of a local socket at which ``headgate ctl`` reaches it, True for one in the usual directory;
    ``controls`` are the same for its own program.
    Leaving the context stops the runs that are still going. It is entered once.
    """

    def __init__(
        self,
        *,
        limits: LimitsSource = None,
        store: StoreSource = None,
        classify: CustomClassifier | None = None,
        seed: int | None = None,
        threads: ThreadRunner | None = None,
        events: EventsSource = None,
        wall_clock: Callable[[], float] = time.time,
        control: str | os.PathLike[str] | bool | None = None,
    ) -> None:
        self.admission = AdmissionController(limits, seed=seed, wall_clock=wall_clock)
        self.store: RunStore = open_store(store)
        self._owns_store = self.store is not store
        self._classifier = Classifier(classify)
        self._wall_clock = wall_clock
        self._builder = RunBuilder(
            self.admission,
            self.store,
            self._classifier,
            rng=random.Random(seed),
            threads=threads,
            wall_clock=wall_clock,
            store_source=store,
        )
        self._tasks: TaskGroup | None = None
        self._runs: dict[str, Run] = {}
        self._parts: dict[str, SharedPart] = {}  # of runs that are shared with other engines
        self._beginning: set[str] = set()  # names of what is neither a run nor a part yet
        self._settled = anyio.Event()  # one of them has begun, or will not
        self._left = False
        self._around: Requester | None = None
        check_source(events)
        self._events = events
        self.controls = Controls(self.admission, self._runs, self._parts)
        self._control_place = control or None
        self._control: ControlSocket | None = None

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self._left:
            raise HeadgateError(_ONCE)
        try:
            await self.store.probe()
            if self._control_place is not None:
                self._control = open_control(self._control_place)
            self._builder.listeners = open_listeners(self._events, self._wall_clock)
        except BaseException:
            if self._control is not None:
                self._control.close()
            await self._close_store()  # nobody will leave a context that was never entered
            raise
        await self.admission.__aenter__()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        if self._control is not None:
            self._tasks.start_soon(self._control.serve, self.controls)
        self._around = requester.get()
        requester.set(Outside(Sender(self.admission, self._classifier, Meter(anyio.current_time()), "engine")))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        self._left = True
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
                self._tasks = None
                if self._control is not None:
                    self._control.close()
                try:
                    await self.admission.__aexit__(None, None, None)
                finally:
                    try:
                        await self._close_store()
                    finally:
                        if self._builder.listeners is not None:
                            await self._builder.listeners.aclose()

    @property
    def control_path(self) -> Path | None:
        """Where ``headgate ctl`` reaches it, while it is entered."""
        return None if self._control is None else self._control.path

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
        settings = RunOptions.of(options)
        with self._beginning_as(run or pipeline.name) as name:
            source = RowSource(rows, row_id=row_id, argument=argument)
            blueprint = await self._builder.check(name, pipeline, source, settings)
            handle, notices = await open_run(self.store, name, pipeline.columns, settings.on_change)
            await self._check_entered(handle)
            begin_with(self.admission, handle.learned, self._wall_clock())
            loop = self._builder.build(blueprint, source, handle, notices)
            assert self._tasks is not None
            started = Run(loop, self._tasks)
            for ended in [other for other, run in self._runs.items() if run.done]:
                del self._runs[ended]  # an engine may outlive any number of runs
            self._runs[name] = started
            self._tasks.start_soon(loop.main)
            return started

    async def share(
        self,
        pipeline: Pipeline,
        rows: Rows,
        *,
        run: str | None = None,
        row_id: RowId = None,
        argument: str | None = None,
        lease_s: float = 60.0,
        started: Callable[[Run], object] | None = None,
        **options: Unpack[RunKeywords],
    ) -> RunReport:
        """Work on a run together with other engines, in other processes or on other hosts, until it is complete.

        All of them are given the same pipeline and the same rows, a list or a number; the store, a
        :class:`~headgate.storage.PostgresStore`, hands out groups of rows, so that each row is done by one of them.
        When one dies, others have its rows after ``lease_s`` seconds at most. The report counts the rows that were done
        here; its ``results()`` are those of the whole run. ``started`` is called with the run of each group. When cells
        are held, or a run that ``started`` was given is stopped, it returns without waiting for the others.

        Columns that have changed are refused unless ``on_change`` says what becomes of them; then the part of all who
        work on the run with other columns ends with FencedOut. Everything else is as for :meth:`start`.
        """
        settings = RunOptions.of(options)
        with self._beginning_as(run or pipeline.name) as name:
            store = check_shareable(self.store, rows, settings, lease_s)
            source = RowSource(rows, row_id=row_id, argument=argument)
            blueprint = await self._builder.check(name, pipeline, source, settings)
            group_rows = -(-GROUP_ROWS // settings.group_size) * settings.group_size
            shared, notices = await join_run(store, name, pipeline.columns, settings.on_change, group_rows=group_rows)
            await self._check_entered(shared)
            begin_with(self.admission, shared.learned, self._wall_clock())

            teller = self._builder.teller(blueprint)

            def loop_over(claim: Claim, deadline_s: float) -> RunLoop:
                rows_of_it = RowSource(rows, row_id=row_id, argument=argument, span=(claim.first, claim.last))
                require_fields(rows_of_it, pipeline, blueprint.graph)
                of_it = replace(blueprint, options=replace(settings, deadline=deadline_s))
                handle = ClaimedRun(shared, claim)
                return self._builder.build(of_it, rows_of_it, handle, notices, claim=claim, whole=teller)

            count = rows if isinstance(rows, int) else len(cast("Sequence[object]", rows))
            at_once = partial(self._groups_at_once, blueprint, group_rows)
            assert self._tasks is not None
            heading = self._builder.heading(blueprint, notices)
            part = self._parts[name] = SharedPart(
                shared,
                loop_over,
                tasks=self._tasks,
                started=started,
                heading=heading,
                options=settings,
                teller=teller,
            )
        try:
            return await part.work(count, at_once=at_once, lease_s=lease_s)
        finally:
            del self._parts[name]

    def _groups_at_once(self, blueprint: Blueprint, group_rows: int) -> int:
        """How many groups keep the resources busy, as things stand: the others are left for other engines."""
        plans, settings = blueprint.plans, blueprint.options
        resources = {plan.resource for plan in plans if plan.resource is not None}
        capacity = sum(min(settings.max_workers, self.admission.gate.capacity(one)) for one in resources)
        capacity += settings.local_workers if any(plan.resource is None for plan in plans) else 0
        rows = min(HORIZON_FACTOR * capacity, settings.max_open_rows)
        return 1 + ceil(rows / group_rows)

    @contextmanager
    def _beginning_as(self, name: str) -> Generator[str]:
        """Keep the name for what begins until the engine has that in hand. Raises ConfigError if it is not free, or no
        store could keep it."""
        if self._left:
            raise HeadgateError(_ONCE)
        if self._tasks is None:
            raise HeadgateError("enter the engine first: async with headgate.Engine(...) as engine")
        if "\0" in name or name.encode(errors="replace").decode() != name:
            raise ConfigError(f"{name!r} is no name for a run: it is not valid Unicode text, or has a zero character")
        going = name in self._parts or (name in self._runs and not self._runs[name].done)
        if going or name in self._beginning:
            raise ConfigError(f"a run named {name!r} is going on in this engine: give this one another name")
        self._beginning.add(name)
        try:
            yield name
        finally:
            self._beginning.remove(name)
            self._settled.set()
            self._settled = anyio.Event()

    async def _check_entered(self, handle: RunHandle) -> None:
        """Give ``handle`` up if the engine was left while it was being opened. Raises HeadgateError then."""
        if self._left:
            await handle.aclose()
            raise HeadgateError("the engine was left before the run could begin: nothing of it was done")

    async def _close_store(self) -> None:
        if self._owns_store:
            with anyio.CancelScope(shield=True):
                await self.store.aclose()

    async def _finish_runs(self) -> None:
        going: list[Run | SharedPart] = [*self._runs.values(), *self._parts.values()]
        for run in going:
            run.stop()
        while self._beginning:  # by other tasks, which find it left
            await self._settled.wait()
        for run in going:
            await run.ended()
