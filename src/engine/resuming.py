"""Opening a run that may have been there before, with columns that may have changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.to_thread
from anyio.lowlevel import checkpoint

from ..errors import FingerprintMismatch
from ..log import logger
from .changes import decide
from .fingerprints import column_reads, take_fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..storage.ports import RunHandle, RunStore
    from .changes import OnChange, Plan
    from .column import Column

__all__ = ["notices_of", "open_run", "plan_changes", "tell"]


async def open_run(
    store: RunStore, run: str, columns: Sequence[Column], on_change: OnChange
) -> tuple[RunHandle, tuple[str, ...]]:
    """Open ``run`` for ``columns``; return the handle, and what there is to say about columns that have changed.

    It is said aloud too, before anything is spent. Raises FingerprintMismatch if nothing may change, and StoreError.
    """
    given: dict[str, str] = {}
    for _ in take_fingerprints(columns, given):
        await checkpoint()
    try:
        return await store.open_run(run, given), ()
    except FingerprintMismatch:
        plan = await anyio.to_thread.run_sync(plan_changes, store, run, given, column_reads(columns), on_change)
    handle = await store.open_run(run, plan.fingerprints, renewed=plan.renewed, kept=plan.kept)
    return handle, tell(run, plan)


def plan_changes(
    store: RunStore, run: str, given: Mapping[str, str], reads: Mapping[str, Sequence[str]], on_change: OnChange
) -> Plan:
    """Say what becomes of the columns of a run that the store has; see :func:`.changes.decide`. It blocks.

    Raises FingerprintMismatch and StoreError.
    """
    info = store.read_info(run)
    plan = decide(run, info.fingerprints, given, reads, on_change, aside=info.aside)
    if plan.eclipsed and (bare := _bare(store, run, given)):
        plan = decide(run, info.fingerprints, given, reads, on_change, aside=info.aside, bare=bare)
    return plan


def _bare(store: RunStore, run: str, columns: Iterable[str]) -> set[str]:
    """Those of the columns that have neither outcomes nor held cells. Reads until each was found to have one."""
    bare = set(columns)
    for row in store.read_rows(run):
        bare.difference_update(cell.column for cell in row.cells)
        bare.difference_update(cell.column for cell in row.held)
        if not bare:
            break
    return bare


def tell(run: str, plan: Plan) -> tuple[str, ...]:
    """Say aloud what becomes of columns that have changed, and return it."""
    notices = tuple(notices_of(plan))
    log = logger(run=run)
    for notice in notices:
        log.warning("columns changed", notice=notice)
    return notices


def notices_of(plan: Plan) -> Iterator[str]:
    """Say what becomes of columns that have changed."""
    if plan.renewed:
        yield (
            f"{_names(plan.renewed)} changed since the run was started: made anew, and what was done before is put "
            "aside; it comes back if the change is taken back"
        )
    if plan.kept:
        yield (
            f"{_names(plan.kept)} changed since the run was started: what is done is kept; on_change='rerun' makes it "
            "anew"
        )


def _names(changed: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{name} ({', '.join(parts)})" for name, parts in changed.items())
