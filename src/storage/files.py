"""The store in a directory that several processes or hosts share: no server, no locks.

Each commit is a file of its own that is written once (:mod:`headgate.storage.run_log`); what they amount to is read
into a private index (:mod:`headgate.storage.run_index`). Writes and the reads of an opened run go through one thread,
which commits in groups. ``read_rows`` and its kin work in any process, also while a run goes on.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from ..errors import ResultCorrupt, ResultExpired, UnknownRun
from . import rules, run_sweep, sqlite_reads, sqlite_records
from .bounded_disk import BoundedDisk
from .disk import LocalDisk
from .handle import Handle
from .ports import NOT_RENEWED, TERMINAL, Durability, Swept
from .run_logs import PACK_AFTER, RunLogs
from .sqlite_writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from os import PathLike

    from ..values import Usage
    from .disk import Disk
    from .ports import Batch, RunInfo, StoredRow

__all__ = ["FileRun", "FileStore"]


class FileStore:
    """A :class:`~headgate.storage.ports.RunStore` in a directory. Nothing is made or read before the first use.

    ``root`` may lie on a shared file system that has hard links and syncs directories, as NFS has; ``probe`` tries.
    ``max_payload`` is the bytes of one value, ``max_bytes`` of all files below ``root``, about: what would pass it is
    StoreFull; sweeping makes room. ``pack_after`` is the commits after which they are gathered in one file,
    ``retention_s`` the least that sweeps by this object keep, ``clock`` gives wall-clock seconds, ``disk`` performs the
    operations.
    """

    durability = Durability.HOST

    def __init__(
        self,
        root: str | PathLike[str],
        *,
        max_payload: int = rules.MAX_PAYLOAD,
        max_bytes: int | None = None,
        pack_after: int = PACK_AFTER,
        retention_s: float = 0.0,
        clock: Callable[[], float] = time.time,
        disk: Disk | None = None,
    ) -> None:
        root, disk = Path(root).absolute(), disk or LocalDisk()
        self._root, self._disk, self._clock = root, disk, clock
        rules.check_retention(retention_s)
        self._retention_s = retention_s
        self._closed = False
        self._max_payload = max_payload
        written = disk if max_bytes is None else BoundedDisk(disk, root, max_bytes)
        self._logs = RunLogs(written, root, self.durability, clock, pack_after=pack_after)
        self._writer = Writer(self._logs)
        self._reading = RunLogs(disk, root, self.durability, clock)
        self._lock = threading.Lock()  # guards _reading: its users may be in any thread

    async def probe(self) -> None:
        """See :meth:`headgate.storage.ports.RunStore.probe`. Makes the directory if it is missing."""
        await self._writer.run(lambda _: self._logs.prepare(), writes=False)

    async def open_run(
        self, run: str, fingerprints: Mapping[str, str], *, renewed: Collection[str] = (), kept: Collection[str] = ()
    ) -> FileRun:
        """See :meth:`headgate.storage.ports.RunStore.open_run`."""
        opened = await self._writer.run(
            lambda _: self._logs.open(run, fingerprints, renewed=renewed, kept=kept), subject=run
        )
        return FileRun(self._writer, self._logs, opened, self._max_payload)

    def read_rows(self, run: str, *, batch: int = 500, renewed: Mapping[str, str] = NOT_RENEWED) -> Iterator[StoredRow]:
        """See :meth:`headgate.storage.ports.RunStore.read_rows`."""
        assert batch > 0, f"batch {batch}: at least one row at a time"
        first = self._read_batch(run, 0, batch, renewed)
        return self._read_on(run, first, batch, renewed)

    def read_runs(self) -> tuple[str, ...]:
        """See :meth:`headgate.storage.ports.RunStore.read_runs`."""
        return tuple(sorted(run for run in self._reading.runs() if self._is_kept(run)))

    def read_info(self, run: str) -> RunInfo:
        """See :meth:`headgate.storage.ports.RunStore.read_info`."""
        with self._lock:
            self._catch_up(run)
            return sqlite_reads.read_info(self._reading.connection(), run, self.durability)

    def read_spent(self, run: str) -> Mapping[str, Usage]:
        """See :meth:`headgate.storage.ports.RunStore.read_spent`."""
        with self._lock:
            self._catch_up(run)
            return sqlite_reads.read_spent(self._reading.connection(), run)

    def read_learned(self, run: str) -> bytes | None:
        """See :meth:`headgate.storage.ports.RunStore.read_learned`."""
        with self._lock:
            self._catch_up(run)
            return sqlite_reads.read_learned(self._reading.connection(), run)

    def count_outcomes(self, run: str) -> int:
        """See :meth:`headgate.storage.ports.RunStore.count_outcomes`."""
        with self._lock:
            self._catch_up(run)
            return sqlite_reads.count_outcomes(self._reading.connection(), run)

    async def sweep(self, *, keep_s: float, statuses: Collection[str] = TERMINAL, spare: Collection[str] = ()) -> Swept:
        """See :meth:`headgate.storage.ports.RunStore.sweep`. Runs beside all else, in a thread of its own."""
        rules.check_sweep(keep_s, statuses, spare, self._retention_s)
        self._check_open()

        def work() -> Swept:
            logs = RunLogs(self._disk, self._root, self.durability, self._clock)
            try:
                return run_sweep.sweep(logs, self._clock(), keep_s, statuses, spare)
            finally:
                logs.close()

        return await to_thread.run_sync(work)

    async def read_register(self, name: str) -> tuple[int, bytes]:
        """See :meth:`headgate.restart.ports.DecisionStore.read_register`."""
        self._check_open()
        return await to_thread.run_sync(self._logs.registers.read, name)

    async def write_register(self, name: str, data: bytes, *, after: int) -> bool:
        """See :meth:`headgate.restart.ports.DecisionStore.write_register`."""
        self._check_open()
        return await to_thread.run_sync(self._logs.registers.write, name, data, after)

    async def aclose(self) -> None:
        """Finish what was handed in, end the thread. What is stored can still be read from this object."""
        self._closed = True
        await self._writer.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise rules.closed(str(self._root))

    def _is_kept(self, run: str) -> bool:
        try:
            self.read_info(run)
        except (UnknownRun, ResultExpired):
            return False
        except ResultCorrupt:  # whoever reads it will be told
            return True
        return True

    def _read_batch(self, run: str, first: int, batch: int, renewed: Mapping[str, str]) -> list[StoredRow]:
        with self._lock:
            self._catch_up(run)
            connection = self._reading.connection()
            rows = sqlite_reads.load(connection, run, first, sys.maxsize, most=batch, renewed=renewed)
        try:
            return self._reading.payloads.move_in(rows, run)
        except ResultCorrupt:
            self.read_info(run)  # ResultExpired, if a sweep has come in between
            raise

    def _read_on(self, run: str, rows: list[StoredRow], batch: int, renewed: Mapping[str, str]) -> Iterator[StoredRow]:
        while rows:
            yield from rows
            rows = self._read_batch(run, rows[-1].record.row + 1, batch, renewed) if len(rows) == batch else []

    def _catch_up(self, run: str) -> None:
        connection = self._reading.connection()
        self._reading.begin(writes=True)
        try:
            self._reading.catch_up(run)
            self._reading.commit()
        except BaseException:
            connection.execute("ROLLBACK")
            raise


class FileRun(Handle):
    """A :class:`~headgate.storage.ports.RunHandle` on a run in a directory."""

    def __init__(self, writer: Writer, logs: RunLogs, opened: sqlite_records.Opened, max_payload: int) -> None:
        super().__init__(opened)
        self._writer = writer
        self._logs = logs
        self._opened = opened
        self._max_payload = max_payload

    async def commit(self, batch: Batch) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.commit`."""
        self.check_open()
        run, kept = self.info.run, batch

        def prepare() -> int:
            nonlocal kept
            size = rules.check_sizes(run, batch, self._max_payload)
            kept = self._logs.payloads.move_out(batch, self._logs.key(run), self.info.epoch)
            return size

        await self._writer.run(lambda _: self._logs.write(self._opened, kept), subject=run, prepare=prepare)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        """See :meth:`headgate.storage.ports.RunHandle.load`."""
        self.check_open()
        run = self.info.run

        def work(connection: sqlite3.Connection) -> list[StoredRow]:
            self._logs.catch_up(run)
            return sqlite_reads.load(connection, run, first, last)

        return await self._logs.payloads.whole(lambda: self._writer.run(work, subject=run), run)

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        """See :meth:`headgate.storage.ports.RunHandle.find`."""
        self.check_open()
        run = self.info.run

        def work(connection: sqlite3.Connection) -> dict[str, int]:
            self._logs.catch_up(run)
            return sqlite_reads.find(connection, run, row_ids)

        return await self._writer.run(work, subject=run)

    async def finish(self, status: str) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.finish`."""
        self.check_open()
        await self._writer.run(lambda _: self._logs.finish(self._opened, status), subject=self.info.run)
