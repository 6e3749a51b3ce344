"""The connection that writes a SQLite file of ours: opening it, waiting for other processes, emptying its log.

SQLite below 3.51.3 can damage a file when one connection resets the write-ahead log while another one
checkpoints. So SQLite's own checkpoints after a commit are off, and each process checkpoints only while it
holds the write lock on its main connection, through a second one. No checkpoint then ever meets a write or
another checkpoint, across processes too. (The one that SQLite makes when the last connection closes runs
under an exclusive lock anyway.)
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import StoreUnavailable, StoreUnsupported
from .sqlite_format import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .sqlite_format import FileFormat

__all__ = ["WritableFile", "is_busy"]

T = TypeVar("T")

_BUSY_TRIES: Final = 8
_CHECKPOINT_COMMITS: Final = 128
_CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
_WAL_KEPT_BYTES: Final = 16 * 1024 * 1024
_OLDEST_SQLITE: Final = (3, 24, 0)  # the first with ON CONFLICT DO NOTHING


def is_busy(error: Exception) -> bool:
    """Whether another connection holds a lock, and this one may try again."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class WritableFile:
    """One file of ``kind``, opened for writing on first use. All calls must come from one thread.

    ``synchronous`` is SQLite's word (FULL, NORMAL), ``busy_timeout_s`` the seconds for which another process
    may hold the lock, ``max_bytes`` a bound on the size of the main file.
    """

    def __init__(
        self, path: Path, kind: FileFormat, *, synchronous: str, busy_timeout_s: float, max_bytes: int | None
    ) -> None:
        self.path = path
        self._kind = kind
        self._synchronous = synchronous
        self._busy_timeout_s = busy_timeout_s
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._checkpointer: sqlite3.Connection | None = None
        self._identity: tuple[int, int] = (0, 0)
        self._commits = 0
        self._bytes = 0

    def connection(self) -> sqlite3.Connection:
        """Return the connection, opening it if need be. Raises sqlite3.Error, StoreError.

        A file that was deleted or replaced while it was open is StoreUnavailable: what is written to the old
        one would be acknowledged and gone.
        """
        fresh = self._connection is None
        connection = self._connection = self._connection or self._open()
        try:
            found = self.path.stat()
        except OSError as error:
            raise StoreUnavailable(f"{self.path} has gone while in use: {error.strerror}") from error
        if fresh:
            self._identity = (found.st_dev, found.st_ino)
        if (found.st_dev, found.st_ino) != self._identity:
            raise StoreUnavailable(f"{self.path} was replaced while in use: put back the file that was here")
        return connection

    def patiently(self, act: Callable[[], T]) -> T:
        """Do ``act``, again and again while another process holds the lock. Raises sqlite3.Error."""
        for _ in range(_BUSY_TRIES - 1):
            try:
                return act()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            time.sleep(0.002)  # where SQLite says busy without having waited
        return act()

    def begin(self, *, writes: bool) -> None:
        """Begin a transaction; one that writes waits for other processes. Raises sqlite3.Error."""
        assert self._connection is not None
        connection = self._connection
        self.patiently(lambda: connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN"))

    def commit(self) -> None:
        """End the transaction; what was written is durable on return. Raises sqlite3.Error."""
        assert self._connection is not None
        self._connection.execute("COMMIT")

    def wrote(self, size: int) -> None:
        """Count a commit of about ``size`` bytes, and empty the log into the main file when it is time."""
        self._commits += 1
        self._bytes += size
        if self._commits < _CHECKPOINT_COMMITS and self._bytes < _CHECKPOINT_BYTES:
            return
        self._commits = self._bytes = 0
        try:
            self._checkpoint()
        except sqlite3.Error:
            # Nothing is lost: all of it is in the log, which the next checkpoint or opening will empty.
            return

    def close(self) -> None:
        """Close the connections; SQLite empties and removes the log if nobody else has the file open."""
        for connection in (self._checkpointer, self._connection):
            if connection is not None:
                connection.close()
        self._checkpointer = self._connection = None

    def _open(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise StoreUnsupported(f"SQLite {sqlite3.sqlite_version} is too old: use a Python with 3.24 or later")
        self._kind.check_identity(self.path)
        connection = connect(self.path, query="mode=rwc", busy_timeout_s=self._busy_timeout_s / _BUSY_TRIES)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        self.patiently(lambda: self._kind.create(connection, self.path))
        mode = self.patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        if mode != "wal":
            raise StoreUnsupported(
                f"{self.path}: no write-ahead log is possible here (SQLite says {mode!r}), as on most "
                "network file systems: put the store on a local disk"
            )
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
        connection.execute("PRAGMA foreign_keys = ON")
        if self._max_bytes is not None:
            page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // page_bytes)}")

    def _checkpoint(self) -> None:
        assert self._connection is not None, "there is nothing to checkpoint before the first commit"
        if self._checkpointer is None:
            self._checkpointer = connect(self.path, query="mode=rw")
            self._checkpointer.execute("PRAGMA wal_autocheckpoint = 0")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            self._connection.execute("ROLLBACK")
