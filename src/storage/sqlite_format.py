"""What one SQLite file of ours is: its identity, its version, its tables; and what SQLite's own errors mean.

A file is ours if its application id says so; the user version is the version of the tables. Both are looked
at through an ``immutable`` connection before anything else is done, which takes no lock, replays no log and
leaves no file behind: a file that is not ours is never changed. Both are written in the transaction that
creates the tables, before the file is switched to WAL, so that they always stand in the main file.

(Reading the header with ``open`` would do the same and be a trap: closing that descriptor drops every POSIX
lock that this process holds on the file, those of its own SQLite connections included.)
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import (
    PayloadTooLarge,
    ResultCorrupt,
    SchemaMismatch,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnsupported,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["SQLITE_ERRORS", "FileFormat", "connect", "meaning_of"]

SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What a call of SQLite raises: the second where a damaged name, or a message about it, is no text."""


def connect(path: Path, *, query: str, busy_timeout_s: float = 5.0) -> sqlite3.Connection:
    """Open the file with the given URI query; transactions are begun by hand. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?{query}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_timeout_s)


@dataclass(frozen=True, slots=True)
class FileFormat:
    """Files of one kind. ``what`` is its name in messages, ``added`` the tables that each later version added.

    Nothing that was there ever changes, so that a file of an earlier version is brought up to date by adding to it.
    """

    what: str
    application_id: int
    version: int
    tables: tuple[str, ...]
    added: Mapping[int, tuple[str, ...]]
    oldest: int = 1

    def check_identity(self, path: Path) -> bool:
        """Return whether there is such a file; False if it is missing or empty. It changes nothing.

        Raises SchemaMismatch for anything else, and for a version that this code does not read, StoreError for what
        cannot be read.
        """
        try:
            if not path.exists() or path.stat().st_size == 0:
                return False
            application_id, version = _identity(path)
        except SQLITE_ERRORS as error:
            raise meaning_of(error, path) from error
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be looked at: {error.strerror}") from error
        if application_id != self.application_id:
            raise SchemaMismatch(f"{path} is not {self.what}: use another path")
        self._check_version(version, path)
        return True

    def create(self, connection: sqlite3.Connection, path: Path) -> None:
        """Make the tables that are not there, in one transaction. Raises sqlite3.Error, SchemaMismatch.

        The version is looked at again: a newer one may still stand in the log only.
        """
        if self._is_current(connection):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been quicker while this one waited for the lock.
            if not self._is_current(connection):
                self._bring_up(connection, path)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _bring_up(self, connection: sqlite3.Connection, path: Path) -> None:
        if _pragma(connection, "application_id") == self.application_id:
            version = _pragma(connection, "user_version")
            self._check_version(version, path)
            tables = [table for added in range(version + 1, self.version + 1) for table in self.added[added]]
        else:
            tables = list(self.tables)
            connection.execute(f"PRAGMA application_id = {self.application_id}")
        for table in tables:
            connection.execute(table)
        connection.execute(f"PRAGMA user_version = {self.version}")

    def _is_current(self, connection: sqlite3.Connection) -> bool:
        found = (_pragma(connection, "application_id"), _pragma(connection, "user_version"))
        return found == (self.application_id, self.version)

    def _check_version(self, version: int, path: Path) -> None:
        """Raise SchemaMismatch unless this code reads files of that version."""
        if self.oldest <= version <= self.version:
            return
        age, cure = ("newer", "upgrade headgate") if version > self.version else ("older", "start a new one")
        raise SchemaMismatch(
            f"{path} was made by {age} headgate (its format is {version}, this one writes {self.version}): "
            f"{cure}, or use another path"
        )


def _identity(path: Path) -> tuple[int, int]:
    """Return the application id and the version that the main file holds. Raises sqlite3.Error.

    Beside a log the header may tell of pages that stand there only: in the middle of a checkpoint, and for as long as a
    reader keeps one from being finished. SQLite takes that for damage unless the schema is writable. Nothing but the
    header is read, and if the file is really cut short, whoever reads more is told so.
    """
    with closing(connect(path, query="immutable=1")) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        return _pragma(connection, "application_id"), _pragma(connection, "user_version")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def meaning_of(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> StoreError:
    """Return the store error that an error of SQLite amounts to."""
    # The driver's own error about a text has no code.
    if isinstance(error, UnicodeDecodeError) or str(error).startswith("Could not decode to UTF-8"):
        return ResultCorrupt(f"{path}: a name or a text in it is damaged ({error}): restore it from a copy")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    said = f"{path}: {error} ({name})"
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{said}: free some room and resume; what was acknowledged is safe")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailable(f"{said}: another process keeps it locked; end that one, or try again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return StoreUnsupported(f"{said}: the file and its directory must be writable")
        case sqlite3.SQLITE_NOTADB:
            return SchemaMismatch(f"{path} is not a database: use another path")
        case sqlite3.SQLITE_CORRUPT:
            return ResultCorrupt(f"{said}: restore it from a copy, or rescue what is left with sqlite3's .recover")
        case sqlite3.SQLITE_TOOBIG:
            return PayloadTooLarge(said)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PROTOCOL | sqlite3.SQLITE_NOMEM:
            return StoreUnavailable(f"{said}: check the disk and the permissions of its directory")
        case _:
            return StoreError(said)
