"""The task that makes a run's records durable, batch by batch.

While one batch is being committed the next one collects, so a slow store gets larger batches instead of a queue.
A store that is away or full for a moment is asked again; one that stays away ends the run loudly (T27, T55).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..errors import StoreError
from ..storage.patience import patiently
from ..storage.ports import Batch
from ..wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..storage.ports import RunHandle
    from .journal import Journal
    from .keeping import Keeper
    from .telling import RunTeller

__all__ = ["RECORDS_PER_TURN", "Committer"]

RECORDS_PER_TURN = 512
"""Committed rows and cells that are counted, and rows that are handed out for it, before the loop gets a turn (T25)."""


class Committer:
    """Commits what the journal collects, and tells the run of each batch that is durable."""

    __slots__ = ("_away", "_committed", "_handle", "_journal", "_keeper", "_teller", "wakeup")

    def __init__(
        self,
        handle: RunHandle,
        journal: Journal,
        keeper: Keeper,
        committed: Callable[[Batch], None],
        teller: RunTeller | None = None,
    ) -> None:
        self._teller = teller
        self._away = None if teller is None else teller.store_retried
        self._handle = handle
        self._journal = journal
        self._keeper = keeper
        self._committed = committed
        self.wakeup = Wakeup()

    async def run(self) -> None:
        """Commit until cancelled. Raises StoreError when the store gives up, or stays away for too long."""
        while True:
            await self.wakeup.wait()
            while self._journal.ready:
                batch = self._journal.take(self._keeper.due())
                await self._commit(batch)
                for number, part in enumerate(batch.parts(RECORDS_PER_TURN)):
                    if number:
                        await checkpoint()
                    self._committed(part)

    async def conclude(self) -> None:
        """The run ends: keep what was learned until now. Nobody depends on it, so nothing fails for it."""
        learned = self._keeper.last()
        if learned is not None:
            with suppress(StoreError):
                await self._handle.commit(Batch(learned=learned))

    async def finish(self, status: str) -> None:
        """The run has ended as ``status``. A store that is away just then takes nobody's report. Raises StoreError."""
        await patiently(lambda: self._handle.finish(status), self._away)

    async def _commit(self, batch: Batch) -> None:
        since = anyio.current_time()
        await patiently(lambda: self._handle.commit(batch), self._away)
        if self._teller is not None:
            self._teller.batch(batch.records, anyio.current_time() - since)
