"""One engine's part of a run that several engines share: the row groups that it claims, each run like a run of its own.

A group has a core, a journal and commits of its own, so that one which is lost to another engine, or cannot be ended
now, concerns no other. Admission is the engine's. A group in which cells are held stays claimed until this engine has
nothing else to do, and is then given back; others try it once more, and end like that themselves.

The part is in hand from its beginning to its end, also while it has no group: between two of them, and while all that
are left belong to others.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, cast

import anyio

from ..storage.group_work import work_on_groups
from ..storage.patience import patiently
from .part_reports import LEFT, added, ended_early, lasted, nothing_yet
from .report import RunStatus
from .runs import Run
from .statistics import RunStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from ..storage.sharing import Claim, SharedRun
    from .main_loop import RunLoop
    from .options import RunOptions
    from .report import RunReport
    from .summary import Heading
    from .telling import RunTeller

__all__ = ["SharedPart"]


class SharedPart:
    """What an engine has in hand of the run ``shared``, from when it has joined it.

    ``loop_over`` gives the run of a group that may take so many seconds, ``started`` hears of each; ``heading`` is how
    the report begins. Of the ``options`` those about its end count here.
    """

    def __init__(
        self,
        shared: SharedRun,
        loop_over: Callable[[Claim, float], RunLoop],
        *,
        tasks: TaskGroup,
        started: Callable[[Run], object] | None,
        heading: Heading,
        options: RunOptions,
        teller: RunTeller | None,
    ) -> None:
        self._shared = shared
        self._loop_over = loop_over
        self._tasks = tasks
        self._started = started
        self._heading = heading
        self._grace_s = options.grace
        self._teller = teller
        self._report = nothing_yet(heading)
        self._rows = 0
        self._groups: list[Run] = []
        self._began_at = anyio.current_time()
        self._ends_at = self._began_at + options.deadline
        self._stopping = anyio.Event()
        self._status = RunStatus.STOPPED  # how it ends then, if the run is not complete
        self._ended = anyio.Event()

    @property
    def groups(self) -> list[Run]:
        """The row groups that go on."""
        return [group for group in self._groups if not group.done]

    @property
    def stopping(self) -> bool:
        """Whether no more groups are begun."""
        return self._stopping.is_set()

    def stop(self, *, grace: float | None = None) -> None:
        """Begin nothing more; what is in flight in its groups gets ``grace`` seconds (default: the run's option)."""
        self.begin_no_more(RunStatus.STOPPED, grace)
        for group in self.groups:
            group.stop(grace=grace)

    def begin_no_more(self, status: RunStatus = RunStatus.STOPPED, grace: float | None = None) -> None:
        """Take no more groups, and end with those that go on: as ``status``, if the run is not complete then."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._status = status
            if self._teller is not None:
                self._teller.stopping(status, self._grace_s if grace is None else grace)

    def statistics(self) -> RunStatistics:
        """What was done here until now, in groups that have ended."""
        done, seconds = self._report, anyio.current_time() - self._began_at
        counts = (done.accepted, done.done, done.failed, done.skipped, done.restored)
        return RunStatistics(done.run, seconds, *counts, 0, done.columns, ())

    async def ended(self) -> None:
        """Return when it has ended, however it did."""
        await self._ended.wait()

    async def work(self, rows: int, *, at_once: Callable[[], int], lease_s: float) -> RunReport:
        """Work on groups until the run of ``rows`` rows is complete, or only held ones are left. Raises what breaks it.

        ``at_once`` says how many at a time; others have the groups of an engine that is gone after ``lease_s``.
        """
        report: RunReport | None = None
        broken: BaseException | None = None
        if self._teller is not None:
            self._teller.started(self._shared.info.epoch)
        self._rows = rows
        try:
            await patiently(lambda: self._shared.extend(rows))
            await self._take_groups(at_once, lease_s)
            # Whether all engines together have ended it, and how, the store knows.
            await patiently(lambda: self._shared.finish(RunStatus.COMPLETED.value))
            report = self._report
            report.check()
        except BaseException as error:
            broken = error
            raise
        finally:
            if self._teller is not None:
                self._teller.over(report, broken)
            try:
                await self._shared.aclose()
            finally:
                self._ended.set()
        return lasted(self._report, anyio.current_time() - self._began_at)

    async def _take_groups(self, at_once: Callable[[], int], lease_s: float) -> None:
        broken: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                if self._ends_at < inf:
                    tasks.start_soon(self._watch_the_time)
                await work_on_groups(
                    self._shared, self._work_on, at_once=at_once, lease_s=lease_s, stopping=self._stopping
                )
                tasks.cancel_scope.cancel()
        except* Exception as group:
            broken = _first_of(group)
        if broken is not None:  # raised here, with the cause that it has, and not because of the group
            raise broken
        if self.stopping:
            progress = await patiently(self._shared.progress)
            if progress.complete < progress.groups:
                self._report = ended_early(self._report, self._status, self._heading)

    async def _watch_the_time(self) -> None:
        await anyio.sleep_until(self._ends_at)
        self.begin_no_more(RunStatus.HELD)

    async def _work_on(self, claim: Claim) -> bool:
        if self.stopping:
            return False
        mine = claim._replace(last=min(claim.last, self._rows))  # another engine may have been given more rows
        loop = self._loop_over(mine, max(0.0, self._ends_at - anyio.current_time()))
        run = Run(loop, self._tasks, part=self)
        self._groups = [*self.groups, run]
        if self._started is not None:
            self._started(run)
        await loop.main()
        if loop.error is not None:
            raise loop.error
        assert loop.report is not None
        self._report = added(self._report, loop.report)
        if loop.report.status is RunStatus.STOPPED:
            self.begin_no_more()
        return loop.report.status not in LEFT and mine == claim


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What broke the work first: one thing, as for any other run."""
    first = group.exceptions[0]
    return (
        _first_of(cast("BaseExceptionGroup[BaseException]", first)) if isinstance(first, BaseExceptionGroup) else first
    )
