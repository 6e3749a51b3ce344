"""The task of one run: it opens what the run works with, takes the steps that nobody else takes, sleeps, and concludes.

What a step does, and who else takes them, is in :mod:`headgate.engine.steps`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..errors import HeadgateError
from ..wakeup import loop_clock
from .halt import cause_of
from .report import RunReport, RunStatus
from .summary import status_of, summarize

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..storage.ports import RunHandle
    from .options import RunOptions
    from .steps import Steps
    from .summary import Heading
    from .telling import RunTeller

__all__ = ["RunLoop"]


class RunLoop:
    """A run that ends by itself. What its user sees of it is :class:`~headgate.engine.runs.Run`.

    ``heading`` is how its report begins; ``forget`` takes the rows out of the store that were handed out, by position.
    """

    def __init__(
        self,
        heading: Heading,
        steps: Steps,
        handle: RunHandle,
        options: RunOptions,
        *,
        forget: Callable[[int], None] | None = None,
        teller: RunTeller | None = None,
    ) -> None:
        self._heading = heading
        self.steps = steps
        self._handle = handle
        self._options = options
        self.forget = forget
        self._teller = teller
        self._clock = loop_clock()
        self.report: RunReport | None = None
        self.done = anyio.Event()

    @property
    def name(self) -> str:
        """The run's name in the store."""
        return self._heading.run

    @property
    def error(self) -> BaseException | None:
        """What broke the run."""
        return self.steps.error

    async def main(self) -> None:
        """Run to the end. Started once by the engine, in its task group; keeps what broke the run for ``wait``."""
        steps = self.steps
        if self._teller is not None:
            self._teller.started(self._handle.info.epoch)
        try:
            await self._work()
            if steps.error is None:
                await self._conclude()
            else:
                await steps.committer.conclude()
                await self._handle.finish(status_of(steps.stopping.ends_as, steps.core.tally).value)
        except BaseException as error:
            steps.error = steps.error or cause_of(error, anyio.get_cancelled_exc_class())
            if not isinstance(error, Exception):
                raise
        finally:
            try:
                await self._close()
            finally:  # nobody must wait for ever, whatever went wrong
                self.done.set()
                steps.rows_ready.set()

    async def _close(self) -> None:
        """Leave nothing behind, also when cancelled."""
        steps = self.steps
        steps.dispatch.close(anyio.current_time())
        steps.flight.give_back()
        steps.performer.leave()
        with anyio.CancelScope(shield=True):
            try:
                await self._handle.aclose()
            except Exception as error:  # of a store; it is this run's, and no reason to end others of the engine
                steps.error = steps.error or error
            if self._teller is not None:
                status = None if self.report is None else self.report.status
                await self._teller.ended(steps.core, status, steps.error)

    async def _work(self) -> None:
        """Everything until nothing is left to do: with workers, the committer and whoever lets rows in."""
        steps, over = self.steps, False
        try:
            async with anyio.create_task_group() as tasks:
                # Beyond max_workers each resource's one standing bid may be granted: see Dispatch.
                most = self._options.max_workers + len(steps.intake.resources) + self._options.local_workers
                steps.flight.open(tasks, most)
                tasks.start_soon(steps.committer.run)
                if not steps.intake.immediate:
                    tasks.start_soon(steps.feeder.run)
                await self._loop()
                await steps.flight.dismiss()
                over = True
                tasks.cancel_scope.cancel()
        finally:
            if steps.intake.immediate:  # else who lets rows in has seen to it
                await steps.intake.aclose()
        if not over:  # a task of the group ended by a cancellation that was not ours, and the group says no word of it
            raise HeadgateError(
                "something that the run awaited was cancelled by somebody else; what was committed stays"
            )

    async def _loop(self) -> None:
        steps = self.steps
        dispatch, core, flight, feeder = steps.dispatch, steps.core, steps.flight, steps.feeder
        while True:
            steps.step(self._clock(), True)
            if not flight.jobs and dispatch.exhausted(core) and not feeder.coming:
                steps.halt(RunStatus.BUDGET_EXHAUSTED)
            if steps.over():
                return
            if dispatch.unfinished or feeder.more or flight.condemned or core.unfinished:
                await checkpoint()
                continue
            steps.armed = steps.next_tick()
            await dispatch.bidder.wakeup.wait(steps.armed)
            steps.armed = -inf

    async def _conclude(self) -> None:
        steps, core, meter = self.steps, self.steps.core, self.steps.meter
        steps.paces.read(anyio.current_time())
        await steps.committer.conclude()
        for _ in core.leave_open():
            await checkpoint()
        now, status = anyio.current_time(), status_of(steps.stopping.ends_as, core.tally)
        steps.paces.read(now)
        await steps.committer.finish(status.value)
        self.report = summarize(
            self._heading,
            status,
            core,
            meter,
            seconds=now - meter.started_at,
            notices=steps.performer.notices,
            spending=steps.flight.spending,
        )
        self.report.check()
