"""One engine's part of a run that several engines share: the row groups that it claims, each run like a run of its own.

A group has a core, a journal and commits of its own, so that one which is lost to another engine, or cannot be ended
now, concerns no other. Admission is the engine's. A group in which cells are held stays claimed until this engine has
nothing else to do, and is then given back; others try it once more, and end like that themselves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import anyio
import anyio.to_thread

from ..errors import ConfigError, FingerprintMismatch, StoreUnsupported
from ..storage.group_work import work_on_groups
from .changes import decide
from .fingerprints import column_reads, fingerprints
from .report import ColumnReport, ResourceReport, RunReport, RunStatus
from .resuming import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..export import RunResults
    from ..storage.ports import Batch, RunInfo, RunStore, StoredRow
    from ..storage.sharing import Claim, SharedRun, SharingStore
    from .changes import OnChange
    from .column import Column
    from .main_loop import RunLoop
    from .options import RunOptions

__all__ = [
    "GROUP_ROWS",
    "ClaimedRun",
    "check_shareable",
    "finish_together",
    "join_run",
    "lasted",
    "nothing_yet",
    "work_in_part",
]

GROUP_ROWS = 64
"""Rows that are handed out together, about: as many whole groups of group columns."""

_LEFT = (RunStatus.STOPPED, RunStatus.STALLED, RunStatus.BUDGET_EXHAUSTED, RunStatus.HELD)
_WORST_FIRST = (*_LEFT, RunStatus.COMPLETED_WITH_FAILURES, RunStatus.COMPLETED)

_FAILURES = 1_000
"""Failures that the report of a part names."""


def check_shareable(store: RunStore, rows: object, options: RunOptions) -> SharingStore:
    """The store, if a run over ``rows`` can be shared on it. Raises StoreUnsupported, ConfigError."""
    if not hasattr(store, "join_run"):
        raise StoreUnsupported(
            f"{type(store).__name__} hands out no row groups, so one engine at a time has a run there; several share "
            "one in a PostgresStore"
        )
    if options.budget is not None:
        raise ConfigError("budget= is for one engine that has the run alone: nobody sees what the others spend")
    if options.retry_failed:
        raise ConfigError(
            "retry_failed=True is for one engine that has the run alone: groups that are complete stay so"
        )
    if isinstance(rows, int) or (hasattr(rows, "__getitem__") and hasattr(rows, "__len__")):
        return store  # type: ignore[return-value]
    raise ConfigError("the rows of a shared run are taken from any place: give a list or a number, the same everywhere")


async def join_run(
    store: SharingStore, run: str, columns: Sequence[Column], on_change: OnChange, *, group_rows: int
) -> tuple[SharedRun, tuple[str, ...]]:
    """Take part in ``run``; return the handle, and what there is to say about columns that have changed.

    Columns that are not those of the run end the part of whoever works on it, so that is done only if ``on_change``
    says what is to become of them. Raises FingerprintMismatch otherwise, and StoreError.
    """
    given = fingerprints(columns)
    try:
        return await store.join_run(run, given, group_rows=group_rows), ()
    except FingerprintMismatch as error:
        if on_change == "auto":
            raise FingerprintMismatch(
                f'{error}; it is shared, so nothing is made anew by itself: on_change="rerun" or "keep" in one engine '
                "ends the part of those that work on it, and they join it again with the same columns"
            ) from error
        info = await anyio.to_thread.run_sync(store.read_info, run)
    plan = decide(run, info.fingerprints, given, column_reads(columns), on_change)
    # All of its own are named by who may turn others away. The store looks once more whether there is a reason to: of
    # two that begin a run anew, the second one finds that done and joins the first.
    renewed = given.keys() - plan.kept.keys() if on_change == "rerun" else plan.renewed.keys()
    kept = given.keys() - plan.renewed.keys() if on_change == "keep" else plan.kept.keys()
    handle = await store.join_run(run, given, group_rows=group_rows, renewed=renewed, kept=kept)
    return handle, tell(run, plan)


class ClaimedRun:
    """A shared run as the handle of one group's work: it ends neither the run nor the engine's part in it."""

    def __init__(self, shared: SharedRun, claim: Claim) -> None:
        self._shared = shared
        # Of a group that somebody had before there may be something. A run that begins is not asked for the others.
        fresh = shared.info.rows == 0 and claim.token == 1
        self.info: RunInfo = replace(shared.info, rows=0 if fresh else max(1, shared.info.rows))
        self.learned = shared.learned

    async def commit(self, batch: Batch) -> None:
        """See :meth:`headgate.storage.sharing.SharedRun.commit`."""
        await self._shared.commit(batch)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        """See :meth:`headgate.storage.ports.RunHandle.load`."""
        return await self._shared.load(first, last)

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        """See :meth:`headgate.storage.ports.RunHandle.find`."""
        return await self._shared.find(row_ids)

    async def finish(self, status: str) -> None:
        """The group's rows have ended, not the run."""

    async def aclose(self) -> None:
        """The engine's part goes on."""


async def work_in_part(
    shared: SharedRun,
    loop_over: Callable[[Claim], RunLoop],
    started: Callable[[RunLoop], None],
    *,
    empty: RunReport,
    at_once: Callable[[], int],
    lease_s: float,
) -> RunReport:
    """Work on groups until the run is complete, or only held ones are left; return ``empty`` with what each adds.

    ``loop_over`` gives the run of a group, ``started`` hears of each. Raises what breaks one.
    """
    report, stopped = empty, False

    async def work(claim: Claim) -> bool:
        nonlocal report, stopped
        if stopped:
            return False
        loop = loop_over(claim)
        started(loop)
        await loop.main()
        if loop.error is not None:
            raise loop.error
        assert loop.report is not None
        report = _plus(report, loop.report)
        stopped = stopped or loop.report.status is RunStatus.STOPPED
        return loop.report.status not in _LEFT

    try:
        await work_on_groups(shared, work, at_once=at_once, lease_s=lease_s)
    except* Exception as group:
        raise _first_of(group) from None
    return report


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What broke the work first: one thing, as for any other run."""
    first = group.exceptions[0]
    return (
        _first_of(cast("BaseExceptionGroup[BaseException]", first)) if isinstance(first, BaseExceptionGroup) else first
    )


def nothing_yet(run: str, notices: tuple[str, ...], results: RunResults) -> RunReport:
    """The report of a part before anything was done."""
    return RunReport(run, RunStatus.COMPLETED, 0, 0, 0, 0, 0, 0, 0.0, (), (), (), {}, "", notices, "", results)


def lasted(report: RunReport, seconds: float) -> RunReport:
    """``report`` of a part that took so long. Groups go on at the same time: what set the pace is told in the same
    shares of the whole time.
    """
    scaled: list[ResourceReport] = []
    for resource in report.resources:
        total = sum(resource.seconds.values())
        shares = {pace: spent * seconds / total for pace, spent in resource.seconds.items()} if total else {}
        scaled.append(replace(resource, seconds=shares))
    return replace(report, seconds=seconds, resources=tuple(scaled))


async def finish_together(shared: SharedRun) -> None:
    """Say that the run has ended, if it has, all engines together. How, the store knows."""
    await shared.finish(RunStatus.COMPLETED.value)


def _plus(one: RunReport, other: RunReport) -> RunReport:
    columns = {column.column: column for column in one.columns}
    resources = {resource.resource: resource for resource in one.resources}
    both = {more.resource: _resource(resources.get(more.resource), more) for more in other.resources}
    return replace(
        one,
        status=min(one.status, other.status, key=_WORST_FIRST.index),
        accepted=one.accepted + other.accepted,
        done=one.done + other.done,
        failed=one.failed + other.failed,
        held=one.held + other.held,
        skipped=one.skipped + other.skipped,
        restored=one.restored + other.restored,
        columns=tuple(_column(columns.get(column.column), column) for column in other.columns),
        resources=tuple({**resources, **both}.values()),
        failures=(one.failures + other.failures)[:_FAILURES],
        failure_counts=dict(Counter(one.failure_counts) + Counter(other.failure_counts)),
        advice=other.advice or one.advice,
        notices=tuple(dict.fromkeys((*one.notices, *other.notices))),
        resume_hint=other.resume_hint or one.resume_hint,
    )


def _column(one: ColumnReport | None, other: ColumnReport) -> ColumnReport:
    if one is None:
        return other
    return ColumnReport(
        one.column,
        one.done + other.done,
        one.failed + other.failed,
        one.held + other.held,
        one.skipped + other.skipped,
        one.cost if other.cost is None else other.cost + (one.cost or 0.0),
    )


def _resource(one: ResourceReport | None, other: ResourceReport) -> ResourceReport:
    if one is None:
        return other
    paces = dict.fromkeys((*one.seconds, *other.seconds))
    return replace(
        one,
        requests=one.requests + other.requests,
        outcomes=dict(Counter(one.outcomes) + Counter(other.outcomes)),
        usage=one.usage + other.usage,
        peak_in_flight=max(one.peak_in_flight, other.peak_in_flight),
        mean_limit=one.mean_limit if other.mean_limit is None else other.mean_limit,
        busy_s=one.busy_s + other.busy_s,
        queued_s=one.queued_s + other.queued_s,
        wasted=one.wasted + other.wasted,
        seconds={pace: one.seconds.get(pace, 0.0) + other.seconds.get(pace, 0.0) for pace in paces},
        cost=one.cost if other.cost is None else other.cost + (one.cost or 0.0),
        bound_s=one.bound_s if other.bound_s is None else other.bound_s + (one.bound_s or 0.0),
    )
