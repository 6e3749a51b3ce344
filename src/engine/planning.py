"""Looking ahead: what a run over these rows would have to do, given what the store has of it. Nothing is spent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Unpack

import anyio.lowlevel
import anyio.to_thread

from ..errors import ResultExpired, UnknownRun
from ..reports.wording import shared_among
from ..storage.opening import open_store
from ..storage.ports import RUNNING
from ..storage.sharing import read_shared
from .changes import Plan
from .fingerprints import column_reads, fingerprints
from .options import RunOptions
from .plan import plan_columns
from .planned import RunPlan, WorkCount
from .restore import restore_row
from .resuming import notices_of, plan_changes
from .rows import RowSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..storage.ports import RunInfo, RunStore, StoredRow
    from ..storage.sharing import SharedState
    from .engine import StoreSource
    from .options import RunKeywords
    from .pipeline import Pipeline
    from .rows import RowId, Rows
    from .values import ColumnPlan, OpenRow

__all__ = ["plan_run"]

_AT_ONCE = 500
"""Rows that are pulled, and then looked up, before others get their turn."""

_NOTHING_CHANGED = Plan({}, {})


async def plan_run(
    pipeline: Pipeline,
    rows: Rows,
    *,
    store: StoreSource = None,
    run: str | None = None,
    row_id: RowId = None,
    argument: str | None = None,
    **options: Unpack[RunKeywords],
) -> RunPlan:
    """Say what :func:`headgate.arun` would do with the same arguments: how many cells of each column would run.

    Reads the store and all ``rows``, calls no function of a column or condition, and changes nothing: a run that goes
    on in another process is not disturbed. Of the ``options``, ``on_change``, ``retry_failed``, ``finish_siblings`` and
    ``group_size`` matter. The same is refused as by a run: PipelineError, InputError, ConfigError, FingerprintMismatch
    and other StoreErrors.
    """
    settings = RunOptions.of(options)
    name = run or pipeline.name
    source = RowSource(rows, row_id=row_id, argument=argument)
    graph = pipeline.compile(source.first_fields)
    for _ in source.requiring(graph.input_fields, {c.spec.name: c.spec.required() for c in pipeline.columns}):
        await anyio.lowlevel.checkpoint()
    plans = plan_columns(pipeline, graph)
    opened = open_store(store)
    try:
        info, shared = await anyio.to_thread.run_sync(_known, opened, name)
        given = fingerprints(pipeline.columns)
        changes = _NOTHING_CHANGED
        if info is not None:
            reads = column_reads(pipeline.columns)
            changes = await anyio.to_thread.run_sync(plan_changes, opened, name, given, reads, settings.on_change)
        count = WorkCount(graph, plans, group_size=settings.group_size, finish_siblings=settings.finish_siblings)
        renewed = {column: changes.fingerprints[column] for column in changes.renewed}
        stored = None if info is None else _Stored(opened, name, renewed)
        try:
            left = await _count(source, stored, count, plans, retry_failed=settings.retry_failed)
        finally:
            await source.aclose()
    finally:
        if opened is not store:
            await opened.aclose()
    notices = [*notices_of(changes), *_about_rows(left), *_about_sharing(info, shared)]
    columns = count.columns({**changes.renewed, **changes.kept})
    return RunPlan(name, info is not None, count.rows, columns, tuple(notices))


def _known(store: RunStore, run: str) -> tuple[RunInfo | None, SharedState | None]:
    try:
        return store.read_info(run), read_shared(store, run)
    except (UnknownRun, ResultExpired):  # a run that was swept begins anew
        return None, None


class _Stored:
    """What the store has of a run, read forwards: as it would be with some columns renewed, and as it is for those."""

    def __init__(self, store: RunStore, run: str, renewed: Mapping[str, str]) -> None:
        self._then = store.read_rows(run, renewed=renewed)
        self._now: Iterator[StoredRow] = store.read_rows(run) if renewed else iter(())
        self._renewed = renewed
        self._next: StoredRow | None = None
        self._begun = False

    def look_up(self, rows: Sequence[OpenRow]) -> list[tuple[StoredRow | None, frozenset[str]]]:
        """Return what is stored of ``rows``, and which renewed columns have an outcome now. Blocks."""
        return [self._look_up(row.record.row) for row in rows]

    def left(self) -> int:
        """Return how many stored rows nobody has asked for. Blocks."""
        return (self._next is not None) + sum(1 for _ in self._then)

    def _look_up(self, row: int) -> tuple[StoredRow | None, frozenset[str]]:
        if not self._begun:
            self._next, self._begun = next(self._then, None), True
        if self._next is None or self._next.record.row != row:
            return None, frozenset()
        found, self._next = self._next, next(self._then, None)
        return found, self._put_aside(row)

    def _put_aside(self, row: int) -> frozenset[str]:
        for stored in self._now:
            if stored.record.row == row:
                return frozenset(cell.column for cell in stored.cells if cell.column in self._renewed)
        return frozenset()


async def _count(
    source: RowSource, stored: _Stored | None, count: WorkCount, plans: Sequence[ColumnPlan], *, retry_failed: bool
) -> int:
    index = {plan.name: plan.index for plan in plans}
    wall_now = time.time()
    while rows := await source.pull(_AT_ONCE):
        found = None if stored is None else await anyio.to_thread.run_sync(stored.look_up, rows)
        for place, row in enumerate(rows):
            known, before = (None, frozenset[str]()) if found is None else found[place]
            restored = None
            if known is not None:
                restored = restore_row(row.record, known, plans, index, wall_now, retry_failed=retry_failed)
            count.add(row.record.row, restored, before)
        await anyio.lowlevel.checkpoint()
    return 0 if stored is None else await anyio.to_thread.run_sync(stored.left)


def _about_sharing(info: RunInfo | None, shared: SharedState | None) -> Iterator[str]:
    if info is not None and info.status == RUNNING and shared is not None:
        yield f"the run goes on; {shared_among(shared)}"


def _about_rows(left: int) -> Iterator[str]:
    if left:
        yield f"the store has {left} rows more than were given: they stay as they are"
