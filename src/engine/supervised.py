"""A run under a supervisor: engines, one after another, as long as it is decided that there is another one.

Each life is a call of :func:`~headgate.engine.faces.arun` on the same store: what earlier lives have finished costs
nothing, and tasks that were set aside are not tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Unpack, cast

import anyio
import anyio.to_thread

from ..errors import ConfigError, StoreUnsupported
from ..export import output_path
from ..log import logger
from ..restart import (
    Blocked,
    Cause,
    FailureCount,
    Ledger,
    Life,
    LifeEnd,
    RestartCoordinator,
    Supervised,
    Supervisor,
    TaskId,
    configured_sources,
    load_restart,
    render,
)
from ..restart.supervisor import NO_CURE
from ..restart.values import cause_of
from ..storage.opening import open_store
from ..values import EXIT_CODES
from .faces import RunFaceKeywords, arun, block_on
from .listeners import open_listeners
from .report import RunReport, RunStatus
from .rows import Rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Sequence

    from ..restart import Decision, DecisionStore, RestartSource, RunRecord
    from ..restart.config import RestartSourceSpec
    from ..storage.ports import Batch, RunHandle, RunStore
    from .interrupts import Face
    from .pipeline import Pipeline
    from .runs import Run

__all__ = ["RowsAgain", "SuperviseKeywords", "SupervisedRun", "asupervise", "supervise"]

RowsAgain = Rows | Callable[[], Rows]
"""Rows that each life can begin with: a list, a number, or a function that returns them anew."""


class SuperviseKeywords(RunFaceKeywords, total=False):
    """What :func:`supervise` takes by name: see :func:`asupervise`."""

    restart: RestartSourceSpec
    sources: Sequence[RestartSource] | None
    recover: Callable[[], Awaitable[None]] | None
    reopen: bool
    replica: str | None


@dataclass(frozen=True, slots=True)
class SupervisedRun:
    """How a run under a supervisor ended. ``report`` is that of the last life, if it came to one.

    ``record`` is everything on record about its restarts; ``str()`` is all of it for people.
    """

    supervised: Supervised
    report: RunReport | None
    record: RunRecord

    @property
    def status(self) -> str:
        """That of the last report, ``told_to_stop`` or ``budget_exhausted``."""
        return self.supervised.status

    @property
    def exit_code(self) -> int:
        """That of the last report, 7 if it was told to stop, 6 if the budget is exhausted."""
        return self.supervised.exit_code

    @property
    def decision(self) -> Decision | None:
        """The decision by which it ended; None if it ended by itself."""
        return self.supervised.decision

    def __str__(self) -> str:
        parts = [f"supervised: {self.status} after {self.supervised.lives} lives", render(self.record)]
        return "\n".join([*parts, str(self.report)] if self.report else parts)


async def asupervise(pipeline: Pipeline, rows: RowsAgain, **options: Unpack[SuperviseKeywords]) -> SupervisedRun:
    """Run ``pipeline`` over ``rows``, again after each bad end, as long as it is decided so.

    ``restart`` says how: a TOML file with a table ``[restart]``, a mapping, or a
    :class:`~headgate.restart.RestartConfig`; ``sources`` are asked beside those that it names. ``recover`` is awaited
    after a bad end, while they analyse. ``reopen`` begins a run again that was closed. ``replica`` is this process's
    name for people. A ``store`` is needed, for results and decisions; ``rows`` are a list, a number, or a function that
    returns them for each life. All else is as for :func:`headgate.arun`; ``deadline`` is that of all lives together,
    ``events`` are told of restarts too, ``out`` is written when the run has finished, and ``started`` gets something to
    stop it by.

    A life that crashes, stalls, leaves rows held or loses its store is a bad end. Raises what no restart cures.
    """
    given: dict[str, Any] = dict(options)
    config = load_restart(given.pop("restart", None))
    own = tuple(given.pop("sources", None) or ())
    recover, reopen, replica = given.pop("recover", None), given.pop("reopen", False), given.pop("replica", None)
    out, started, spec = given.pop("out", None), given.pop("started", None), given.pop("store", None)
    path = None if out is None else output_path(out)
    _check_rows(rows)
    if spec is None:
        raise ConfigError("a run under a supervisor needs a store=, where results and decisions outlive each life")
    async with AsyncExitStack() as stack:
        store = open_store(spec)
        if store is not spec:
            stack.push_async_callback(_close, store)
        name = given.setdefault("run", None) or pipeline.name
        lives = _Lives(pipeline, rows, _Counting(store), given)
        sources = (*own, *await stack.enter_async_context(configured_sources(config)))
        coordinator = await stack.enter_async_context(
            RestartCoordinator(name, _registers(store), sources=sources, config=config, replica=replica)
        )
        listeners = open_listeners(given.pop("events", None), time.time)
        if listeners is not None:
            stack.push_async_callback(listeners.aclose)
            given["events"] = listeners.sinks
        events = None if listeners is None else listeners.say
        supervisor = Supervisor(coordinator, lives.live, recover=recover, events=events)
        if started is not None:
            started(supervisor)
        ended = await supervisor.run(reopen=reopen)
        if path is not None and lives.report is not None and ended.end is not None and ended.end.finished:
            await anyio.to_thread.run_sync(lives.report.export, path)
        return SupervisedRun(ended, lives.report, coordinator.record)


def supervise(pipeline: Pipeline, rows: RowsAgain, **options: Unpack[SuperviseKeywords]) -> SupervisedRun:
    """:func:`asupervise` for code that is not async; Ctrl-C as in :func:`headgate.run`, and no life follows."""
    face = cast("Face[SupervisedRun]", partial(asupervise, pipeline, rows))
    return block_on(face, cast("dict[str, object]", options))


class _Lives:
    """The lives of one run, each a call of arun."""

    def __init__(self, pipeline: Pipeline, rows: RowsAgain, store: _Counting, options: dict[str, Any]) -> None:
        self._pipeline = pipeline
        self._rows = rows
        self._store = store
        self._options = options
        self._ends_at = anyio.current_time() + options.pop("deadline", inf)
        self._aside = frozenset(options.pop("set_aside", ()))
        self.report: RunReport | None = None

    async def live(self, life: Life) -> LifeEnd:
        """One life, which is told to end by ``life.stopping``."""
        runs: list[Run] = []
        self._store.cells, self.report = 0, None
        error: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_when, life.stopping, runs)
            try:
                self.report = await self._run(life, runs)
            except Exception as raised:
                error = raised  # kept from the group, which would wrap it in a group of one
            tasks.cancel_scope.cancel()
        if isinstance(error, NO_CURE):
            raise error
        return self._end(error, ledger_of(self.report, runs))

    async def _run(self, life: Life, runs: list[Run]) -> RunReport:
        def started(run: Run) -> None:
            runs[:] = [one for one in runs if not one.done]  # of a shared run there is one for each row group
            runs.append(run)
            if life.stopping.is_set():
                run.stop()

        options: dict[str, Any] = {
            **self._options,
            "store": self._store.store,
            "started": started,
            "set_aside": self._set_aside(life),
        }
        if self._ends_at < inf:
            options["deadline"] = max(0.0, self._ends_at - anyio.current_time())
        rows = self._rows() if callable(self._rows) else self._rows
        return await arun(self._pipeline, rows, **options)

    def _set_aside(self, life: Life) -> Collection[tuple[int, str]]:
        """What the user and the decisions set aside. A service may name what this pipeline does not have."""
        return self._aside | known_cells(self._pipeline, life.entry.quarantined)

    def _end(self, error: Exception | None, ledger: Ledger) -> LifeEnd:
        progress, epoch = max(0, self._store.cells), self._store.epoch
        if error is not None:
            return LifeEnd("crashed", EXIT_CODES["crashed"], cause_of(error), False, progress, epoch, ledger)
        assert self.report is not None
        status = self.report.status
        finished = status in (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_FAILURES)
        of_its_own = (
            finished
            or status in (RunStatus.STOPPED, RunStatus.BUDGET_EXHAUSTED)
            or anyio.current_time() >= self._ends_at
        )
        cause = None if of_its_own else Cause(status.value, message=self.report.advice)
        return LifeEnd(status.value, status.exit_code, cause, finished, progress, epoch, ledger)


def known_cells(pipeline: Pipeline, tasks: Collection[TaskId]) -> frozenset[tuple[int, str]]:
    """The cells that ``tasks`` name. A service may name columns that this pipeline does not have: they are left out."""
    columns = {column.spec.name for column in pipeline.columns}
    if unknown := sorted({task.column for task in tasks if task.column not in columns}):
        logger(run=pipeline.name).warning("restart_cannot_set_aside", columns=unknown)
    return frozenset((task.row, task.column) for task in tasks if task.column in columns)


async def _stop_when(stopping: anyio.Event, runs: list[Run]) -> None:
    await stopping.wait()
    for run in runs:
        run.stop()


def ledger_of(report: RunReport | None, runs: Sequence[Run]) -> Ledger:
    """What failed in one life: what its report says, if it came to one, and what the runs of it know."""
    parked = sorted({lane for run in runs for lane in run.core.salvage.statistics().parked})
    blocked = tuple(Blocked(lane, "parked") for lane in parked)
    stalled = tuple(sorted({TaskId(row, column) for run in runs for row, column in run.stalled_at}))
    if report is None:
        return Ledger(blocked=blocked, in_flight=stalled)
    failures = tuple(FailureCount(column, kind, count) for (column, kind), count in report.failure_counts.items())
    return Ledger(failures, tuple(one.resource for one in report.resources), blocked, in_flight=stalled)


class _Counting:
    """A store that counts the outcomes that are committed through it: what a life has gained.

    An outcome that was reopened and is there again is none: else failing cells that are tried again would be progress.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.cells = 0
        self.epoch = 0

    @property
    def store(self) -> RunStore:
        """Itself, as a store."""
        return cast("RunStore", self)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return partial(self._joined, found) if name == "join_run" else found

    async def _joined(self, join: Callable[..., Awaitable[RunHandle]], *arguments: Any, **named: Any) -> RunHandle:
        return self._counted(await join(*arguments, **named))

    async def open_run(self, *arguments: Any, **named: Any) -> RunHandle:
        return self._counted(await self._store.open_run(*arguments, **named))

    def _counted(self, handle: RunHandle) -> RunHandle:
        self.epoch = handle.info.epoch
        return cast("RunHandle", _CountingHandle(handle, self))


class _CountingHandle:
    """A handle of such a store."""

    def __init__(self, handle: RunHandle, counts: _Counting) -> None:
        self._handle = handle
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    async def commit(self, batch: Batch) -> None:
        await self._handle.commit(batch)
        self._counts.cells += len(batch.cells) - len(batch.reopened)


def _check_rows(rows: object) -> None:
    if isinstance(rows, int) or callable(rows) or (hasattr(rows, "__getitem__") and hasattr(rows, "__len__")):
        return
    raise ConfigError(
        f"rows under a supervisor are read in each life: give a list, a number or a function, not {type(rows).__name__}"
    )


async def _close(store: RunStore) -> None:
    with anyio.CancelScope(shield=True):  # as an engine closes the store that it opened
        await store.aclose()


def _registers(store: RunStore) -> DecisionStore:
    if not hasattr(store, "read_register"):
        raise StoreUnsupported(f"{type(store).__name__} has no registers, in which restarts are decided")
    return cast("DecisionStore", store)
