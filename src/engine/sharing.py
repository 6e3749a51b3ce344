"""Joining a run that several engines share, and the handle of a row group that one of them has claimed."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ..errors import ConfigError, FingerprintMismatch, StoreUnsupported
from ..values import is_number, shown
from .fingerprints import column_reads, fingerprints
from .resuming import plan_changes, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..storage.ports import Batch, RunInfo, RunStore, StoredRow
    from ..storage.sharing import Claim, SharedRun, SharingStore
    from .changes import OnChange
    from .column import Column
    from .options import RunOptions

__all__ = ["GROUP_ROWS", "ClaimedRun", "check_shareable", "join_run"]

GROUP_ROWS = 64
"""Rows that are handed out together, about: as many whole groups of group columns."""


def check_shareable(store: RunStore, rows: object, options: RunOptions, lease_s: float) -> SharingStore:
    """The store, if a run over ``rows`` can be shared on it. Raises StoreUnsupported, ConfigError."""
    if not hasattr(store, "join_run"):
        raise StoreUnsupported(
            f"{type(store).__name__} hands out no row groups, so one engine at a time has a run there; several share "
            "one in a PostgresStore"
        )
    if not is_number(lease_s) or not 0 < lease_s < inf:
        raise ConfigError(f"lease_s must be seconds, more than zero, not {shown(lease_s)}")
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
    except FingerprintMismatch:
        plan = await anyio.to_thread.run_sync(plan_changes, store, run, given, column_reads(columns), on_change)
    if on_change == "auto":
        try:
            return await store.join_run(run, plan.fingerprints, group_rows=group_rows), ()
        except FingerprintMismatch as error:
            raise FingerprintMismatch(
                f'{error}; it is shared, so nothing is made anew by itself: on_change="rerun" or "keep" in one engine '
                "ends the part of those that work on it, and they join it again with the same columns"
            ) from error
    # All of its own are named by who may turn others away. The store looks once more whether there is a reason to: of
    # two that begin a run anew, the second one finds that done and joins the first.
    renewed = given.keys() - plan.kept.keys() if on_change == "rerun" else plan.renewed.keys()
    kept = given.keys() - plan.renewed.keys() if on_change == "keep" else plan.kept.keys()
    handle = await store.join_run(run, plan.fingerprints, group_rows=group_rows, renewed=renewed, kept=kept)
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
