"""The embedded default store: one SQLite file, durable on this host, no server.

Writes and the reads of an opened run go through one thread (:mod:`headgate.storage.sqlite_writer`);
``read_rows`` and its kin open a connection of their own that cannot write, in any process, also while a run
goes on. They read in short transactions, so that a slow reader never keeps the write-ahead log from being
emptied.

Beside the file stand ``-wal`` and ``-shm`` while somebody has it open or after a crash, and ``-payloads``, a
directory, once a payload was larger than 64 KiB. They belong to it: copy a store with ``sqlite3 store.db ".backup
copy.db"`` and then the directory, or copy all four when nobody writes.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from ..errors import ConfigError, ResultCorrupt
from . import rules, sqlite_reads, sqlite_records, sqlite_registers, sqlite_sweep
from .bounded_disk import BoundedDisk
from .disk import LocalDisk
from .handle import Handle
from .payload_files import TEMPORARY_S, PayloadFiles
from .ports import NOT_RENEWED, TERMINAL, Durability, Swept
from .sqlite_file import WritableFile
from .sqlite_format import SQLITE_ERRORS, connect, meaning_of
from .sqlite_schema import STORE
from .sqlite_writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
    from os import PathLike

    from ..values import Usage
    from .ports import Batch, RunInfo, StoredRow

__all__ = ["SqliteRun", "SqliteStore"]

_SYNCHRONOUS: Final = {Durability.HOST: "FULL", Durability.PROCESS: "NORMAL"}


class SqliteStore:
    """A :class:`~headgate.storage.ports.RunStore` in one file. Nothing is opened before the first use.

    ``durability`` HOST flushes each group commit to the disk, PROCESS leaves that to the system and is
    faster. ``busy_timeout_s`` is how long another process may hold the file before a commit is
    StoreUnavailable, ``max_payload`` the bytes of one value, ``max_bytes`` the size at which the file is
    StoreFull, and so are the payloads beside it, ``retention_s`` the least that sweeps by this object keep, ``clock``
    gives wall-clock seconds. Raises ConfigError for a durability that one file cannot give.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        durability: Durability = Durability.HOST,
        busy_timeout_s: float = 30.0,
        max_payload: int = rules.MAX_PAYLOAD,
        max_bytes: int | None = None,
        retention_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if durability not in _SYNCHRONOUS:
            raise ConfigError(f"a SQLite store is durable at the level 'process' or 'host', not {str(durability)!r}")
        rules.check_retention(retention_s)
        self._retention_s = retention_s
        self._path = Path(path).absolute()  # wherever the process goes later
        self._durability = durability
        self._max_payload = max_payload
        self._clock = clock
        synchronous = _SYNCHRONOUS[durability]
        directory = self._path.with_name(f"{self._path.name}-payloads")
        lasting = durability is Durability.HOST
        disk = LocalDisk() if max_bytes is None else BoundedDisk(LocalDisk(), directory, max_bytes)
        self._payloads = PayloadFiles(disk, directory, below=self._path.parent, lasting=lasting)
        file = WritableFile(
            self._path, STORE, synchronous=synchronous, busy_timeout_s=busy_timeout_s, max_bytes=max_bytes
        )
        self._writer = Writer(file)

    @property
    def durability(self) -> Durability:
        """What an acknowledged commit survives here."""
        return self._durability

    async def probe(self) -> None:
        """See :meth:`headgate.storage.ports.RunStore.probe`. Creates the file if it is missing."""
        await self._writer.run(lambda _: None)

    async def open_run(
        self, run: str, fingerprints: Mapping[str, str], *, renewed: Collection[str] = (), kept: Collection[str] = ()
    ) -> SqliteRun:
        """See :meth:`headgate.storage.ports.RunStore.open_run`."""

        def work(connection: sqlite3.Connection) -> sqlite_records.Opened:
            return sqlite_records.open_run(
                connection, run, fingerprints, self._clock(), self._durability, renewed=renewed, kept=kept
            )

        return SqliteRun(self._writer, await self._writer.run(work), self._payloads, self._max_payload, self._clock)

    def read_rows(self, run: str, *, batch: int = 500, renewed: Mapping[str, str] = NOT_RENEWED) -> Iterator[StoredRow]:
        """See :meth:`headgate.storage.ports.RunStore.read_rows`."""
        assert batch > 0, f"batch {batch}: at least one row at a time"
        first = self._read_batch(run, 0, batch, renewed)
        return self._read_on(run, first, batch, renewed)

    def read_runs(self) -> tuple[str, ...]:
        """See :meth:`headgate.storage.ports.RunStore.read_runs`."""
        if not STORE.check_identity(self._path):
            return ()
        with _reading(self._path) as connection:
            return sqlite_reads.read_runs(connection)

    def read_info(self, run: str) -> RunInfo:
        """See :meth:`headgate.storage.ports.RunStore.read_info`."""
        with self._of(run) as connection:
            return sqlite_reads.read_info(connection, run, self._durability)

    def read_spent(self, run: str) -> Mapping[str, Usage]:
        """See :meth:`headgate.storage.ports.RunStore.read_spent`."""
        with self._of(run) as connection:
            return sqlite_reads.read_spent(connection, run)

    def read_learned(self, run: str) -> bytes | None:
        """See :meth:`headgate.storage.ports.RunStore.read_learned`."""
        with self._of(run) as connection:
            return sqlite_reads.read_learned(connection, run)

    def count_outcomes(self, run: str) -> int:
        """See :meth:`headgate.storage.ports.RunStore.count_outcomes`."""
        with self._of(run) as connection:
            return sqlite_reads.count_outcomes(connection, run)

    async def sweep(self, *, keep_s: float, statuses: Collection[str] = TERMINAL, spare: Collection[str] = ()) -> Swept:
        """See :meth:`headgate.storage.ports.RunStore.sweep`. The file gets no smaller: what is free is used again."""
        rules.check_sweep(keep_s, statuses, spare, self._retention_s)
        before = self._clock() - keep_s

        def work(connection: sqlite3.Connection) -> tuple[str, ...]:
            runs = sqlite_sweep.ended(connection, before, statuses, spare)
            for run in runs:
                sqlite_sweep.drop(connection, run)
            return runs

        dropped = await self._writer.run(work)
        while await self._writer.run(sqlite_sweep.clear_some):
            pass
        return Swept(dropped, await to_thread.run_sync(self._remove_leftovers))

    def _remove_leftovers(self) -> int:
        """Remove the files that no run refers to, nor ever will; in a thread that may take its time."""
        if not STORE.check_identity(self._path):
            return 0
        with _reading(self._path) as connection:
            epochs = sqlite_sweep.epochs(connection)
        removed = 0
        for number, epoch in epochs:
            left = list(self._payloads.leftovers(str(number), epoch))
            if left:
                with _reading(self._path) as connection:
                    unreferenced = sqlite_reads.unreferenced(connection, number, left)
                removed += self._payloads.remove(unreferenced)
            removed += self._payloads.remove_temporary(str(number), TEMPORARY_S)
        return removed

    async def read_register(self, name: str) -> tuple[int, bytes]:
        """See :meth:`headgate.restart.ports.DecisionStore.read_register`."""
        return await self._writer.run(lambda connection: sqlite_registers.read(connection, name), writes=False)

    async def write_register(self, name: str, data: bytes, *, after: int) -> bool:
        """See :meth:`headgate.restart.ports.DecisionStore.write_register`."""
        rules.check_register(name, data, after)
        return await self._writer.run(lambda connection: sqlite_registers.write(connection, name, data, after))

    async def aclose(self) -> None:
        """Finish what was handed in, empty the log into the file, close it."""
        await self._writer.aclose()

    def _read_batch(self, run: str, first: int, batch: int, renewed: Mapping[str, str]) -> list[StoredRow]:
        with self._of(run) as connection:
            rows = sqlite_reads.load(connection, run, first, sys.maxsize, most=batch, renewed=renewed)
        try:
            return self._payloads.move_in(rows, run)
        except ResultCorrupt:
            self.read_info(run)  # ResultExpired, if a sweep has come in between
            raise

    @contextmanager
    def _of(self, run: str) -> Generator[sqlite3.Connection]:
        if not STORE.check_identity(self._path):
            raise rules.unknown_run(run)
        with _reading(self._path) as connection:
            yield connection

    def _read_on(self, run: str, rows: list[StoredRow], batch: int, renewed: Mapping[str, str]) -> Iterator[StoredRow]:
        while rows:
            yield from rows
            rows = self._read_batch(run, rows[-1].record.row + 1, batch, renewed) if len(rows) == batch else []


class SqliteRun(Handle):
    """A :class:`~headgate.storage.ports.RunHandle` on a run in a SQLite file."""

    def __init__(
        self,
        writer: Writer,
        opened: sqlite_records.Opened,
        payloads: PayloadFiles,
        max_payload: int,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(opened)
        self._writer = writer
        self._opened = opened
        self._payloads = payloads
        self._max_payload = max_payload
        self._clock = clock

    async def commit(self, batch: Batch) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.commit`."""
        self.check_open()
        opened, kept = self._opened, batch

        # All that looks at every record is done in the thread: a batch may hold a million of them.
        def prepare() -> int:
            nonlocal kept
            size = rules.check_sizes(opened.info.run, batch, self._max_payload)
            kept = self._payloads.move_out(batch, str(opened.number), opened.info.epoch)
            return size

        await self._writer.run(lambda connection: sqlite_records.write_batch(connection, opened, kept), prepare=prepare)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        """See :meth:`headgate.storage.ports.RunHandle.load`."""
        self.check_open()
        run = self.info.run

        def work(connection: sqlite3.Connection) -> list[StoredRow]:
            return sqlite_reads.load(connection, run, first, last)

        return await self._payloads.whole(lambda: self._writer.run(work, writes=False), run)

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        """See :meth:`headgate.storage.ports.RunHandle.find`."""
        self.check_open()
        run = self.info.run
        return await self._writer.run(lambda connection: sqlite_reads.find(connection, run, row_ids), writes=False)

    async def finish(self, status: str) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.finish`."""
        self.check_open()
        opened, now = self._opened, self._clock()
        await self._writer.run(lambda connection: sqlite_records.finish(connection, opened, status, now))


@contextmanager
def _reading(path: Path) -> Generator[sqlite3.Connection]:
    """Give a connection that cannot write, inside one read transaction."""
    try:
        with closing(_reader(path)) as connection:
            yield connection
    except SQLITE_ERRORS as error:
        raise meaning_of(error, path) from error


def _reader(path: Path) -> sqlite3.Connection:
    """Return a connection for reading, also from a medium that cannot be written.

    It is opened ``rw`` all the same where that is possible: only such a one can read what a crash left in the
    log, and tidies the log up when it was the last to have the file open.
    """
    try:
        return _begun(connect(path, query="mode=rw"))
    except sqlite3.OperationalError:
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        # No log, so nobody writes, and the main file is all there is.
        return _begun(connect(path, query="immutable=1"))


def _begun(connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM run LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
