"""The handle of one opening of a run in a PostgreSQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import postgres_reads, postgres_records
from .handle import Handle
from .ports import Batch
from .postgres_records import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .ports import StoredRow
    from .postgres_link import Link
    from .postgres_writer import PostgresWriter

__all__ = ["PostgresRun"]


class PostgresRun(Handle):
    """A :class:`~headgate.storage.ports.RunHandle` on a run in a PostgreSQL database."""

    def __init__(
        self, writer: PostgresWriter, opened: postgres_records.Opened, max_payload: int, clock: Callable[[], float]
    ) -> None:
        super().__init__(opened)
        self._writer = writer
        self._opened = opened
        self._max_payload = max_payload
        self._clock = clock

    async def commit(self, batch: Batch) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.commit`."""
        self.check_open()
        await self._writer.commit(self._opened, batch, self._max_payload)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        """See :meth:`headgate.storage.ports.RunHandle.load`."""
        self.check_open()
        run = self.info.run
        return await self._writer.call(lambda link, _: link.do(lambda c: postgres_reads.load(c, run, first, last)))

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        """See :meth:`headgate.storage.ports.RunHandle.find`."""
        self.check_open()
        run = self.info.run
        return await self._writer.call(lambda link, _: link.do(lambda c: postgres_reads.find(c, run, row_ids)))

    async def finish(self, status: str) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.finish`."""
        self.check_open()
        opened, now = self._opened, self._clock()

        def act(link: Link, sequence: int) -> None:
            try:
                link.do(lambda found: postgres_records.finish(found, opened, sequence, status, now))
            except Refused:
                raise link.do(lambda found: postgres_records.why_refused(found, opened, Batch())) from None

        await self._writer.call(act)
