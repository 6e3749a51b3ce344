"""A run in progress, as its user sees it: rows as they finish, the report, a way to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack

import anyio

from ..errors import ConfigError, HeadgateError
from ..values import is_number, shown
from .report import RunReport, RunStatus
from .statistics import RunStatistics, look

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from anyio.abc import TaskGroup

    from .core import RunCore
    from .flight import Witness
    from .main_loop import RunLoop
    from .meter import Meter
    from .shared_part import SharedPart
    from .values import FinishedRow

__all__ = ["Run"]

Ts = TypeVarTuple("Ts")


class Run:
    """A run in progress. Made by :meth:`headgate.Engine.start`; see :meth:`rows`, :meth:`wait` and :meth:`stop`."""

    def __init__(self, loop: RunLoop, tasks: TaskGroup, *, part: SharedPart | None = None) -> None:
        self._loop = loop
        self._part = part
        self._steps = loop.steps
        self._tasks = tasks
        self._reader: _Reader | None = None
        self._waits = 0

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self._loop.name

    async def rows(self) -> AsyncGenerator[FinishedRow, None]:
        """Finished rows, each as soon as it is committed, in the order in which they finish.

        Call it before anything else is awaited. A slow consumer slows the run down instead of filling memory. Ends
        when the run does; raises what :meth:`wait` raises. Rows that an earlier run finished come too.

        Without a store a row that was handed out is kept nowhere else, so a run of any length takes bounded memory:
        ``report.results()`` then raises ResultExpired, and so does a later run of the same name in this engine.
        """
        loop, steps = self._loop, self._steps
        if steps.dropped_rows:
            raise HeadgateError("rows() came too late: rows have finished before anybody asked for them")
        steps.streaming = True
        finished = steps.core.finished
        reader = self._reader = _Reader(anyio.get_current_task().id)
        try:
            while True:
                while finished:
                    row = steps.core.open.take()
                    if loop.forget is not None:
                        loop.forget(row.index)
                    yield row
                    steps.offer_room()
                if loop.done.is_set():
                    break
                await steps.rows_ready.wait()
        finally:
            if self._reader is reader:
                self._reader = None
                if self._waits:
                    self._let_go()
        if loop.error is not None:
            raise loop.error

    async def wait(self) -> RunReport:
        """The report, when the run has ended. Raises what broke the run, with its cause; never for a failed row,
        unless ``on_failure="raise"`` was given: then RowFailed. Rows that nobody took from :meth:`rows` are let go,
        unless another task is reading them.
        """
        loop = self._loop
        if self._reader is None or self._reader.task == anyio.get_current_task().id:
            self._let_go()
        self._waits += 1
        try:
            await loop.done.wait()
        finally:
            self._waits -= 1
        if loop.error is not None:
            raise loop.error
        assert loop.report is not None
        return loop.report

    def stop(self, *, grace: float | None = None) -> None:
        """Start nothing more; what is in flight gets ``grace`` seconds (default: the run's option), then is
        cancelled. Everything finished is committed, everything else is held for a later run. Raises ConfigError for a
        grace time that cannot be meant.

        Of a row group of a shared run, also one that has ended: this engine begins no further one.
        """
        if grace is not None and not (is_number(grace) and grace >= 0):  # NaN would be waited for without end
            raise ConfigError(f"grace must be zero or more seconds, not {shown(grace)}")
        if not self.done:
            self._steps.halt(RunStatus.STOPPED, grace)
        if self._part is not None:
            self._part.begin_no_more(grace=grace)

    def drain(self) -> None:
        """Take no more rows in. Those that are open are finished, then the run ends: ``stopped`` if rows were left,
        which a later run of the same name goes on with. Without effect once all rows are in, or the run was stopped.
        """
        if self._steps.feeder.drain():
            self._steps.offer_room()  # it may have waited for nothing else

    def attend(self, function: Callable[[Unpack[Ts]], Coroutine[Any, Any, object]], *arguments: *Ts) -> None:
        """Await ``function(*arguments)`` beside the run: a view of it, say. It must not raise, and is cancelled when
        the engine is left.
        """
        self._tasks.start_soon(function, *arguments)

    def statistics(self) -> RunStatistics:
        """One look at the run as it is now."""
        steps = self._steps
        return look(
            self.name,
            steps.core,
            steps.meter,
            steps.controller,
            steps.intake.resources,
            anyio.current_time(),
            ending=self._ending(),
            spending=steps.flight.spending,
        )

    async def ended(self) -> None:
        """Return when the run has ended, however it did."""
        await self._loop.done.wait()

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self._loop.done.is_set()

    @property
    def stopping(self) -> bool:
        """Whether nothing more is started: it was stopped, or a limit on its time passed."""
        return self._steps.stopping.status is not None

    @property
    def draining(self) -> bool:
        """Whether rows were left for a later run by :meth:`drain`."""
        return self._steps.stopping.drained

    @property
    def core(self) -> RunCore:
        """The run's decisions, to look at."""
        return self._steps.core

    @property
    def meter(self) -> Meter:
        """The run's meters, to look at."""
        return self._steps.meter

    @property
    def in_flight(self) -> int:
        """How many tasks run now."""
        return len(self._steps.flight.jobs)

    @property
    def stalled_at(self) -> tuple[tuple[int, str], ...]:
        """What ran when the run was found to have stalled, by row and column; of a group its first row."""
        steps = self._steps
        return steps.flight.cut_off if steps.stopping.status is RunStatus.STALLED else ()

    def watch_flight(self, witness: Witness) -> None:
        """Tell ``witness`` of each task that starts and ends from now on, and of those that run."""
        flight = self._steps.flight
        flight.witness = witness
        for job in flight.jobs.values():
            witness.began(job, job.rows[0], job.plan.name)

    def _ending(self) -> str:
        loop = self._loop
        if self.done:
            return "broken" if loop.report is None else loop.report.status.value
        return "stopping" if self.stopping else "draining" if self.draining else ""

    def _let_go(self) -> None:
        """Nobody reads rows: they do not take up room any more."""
        steps = self._steps
        steps.streaming = False
        steps.core.open.let_go()
        steps.offer_room()


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """One iteration over the rows, and the task that began it."""

    task: int
