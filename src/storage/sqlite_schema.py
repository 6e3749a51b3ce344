"""The file format of the SQLite store: its tables, its identity, and what SQLite's own errors mean.

A file is ours if its application id says so; the user version is the version of the tables. Both are looked
at through an ``immutable`` connection before anything else is done, which takes no lock, replays no log and
leaves no file behind: a file that is not ours is never changed. Both are written in the transaction that
creates the tables, before the file is switched to WAL, so that they always stand in the main file.

(Reading the header with ``open`` would do the same and be a trap: closing that descriptor drops every POSIX
lock that this process holds on the file, those of its own SQLite connections included.)
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
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
    from pathlib import Path

__all__ = [
    "APPLICATION_ID",
    "GENERATIONS_SINCE",
    "SWEPT",
    "VERSION",
    "check_identity",
    "connect",
    "create",
    "meaning_of",
]

APPLICATION_ID: Final = 0x48474154  # "HGAT"
VERSION: Final = 3
_OLDEST_VERSION: Final = 1
_LOOKS: Final = 300
_LOOK_AGAIN_S: Final = 0.01

GENERATIONS_SINCE: Final = 3
"""The version from which on columns have generations: in an older file that is only read there are none."""

SWEPT: Final = "swept"
"""The status of a run that a sweep has dropped; nobody finishes a run with it."""

# Names are numbered once (run.id, run_column.id), so that records stay small. A cell row says which epoch
# wrote it. A failed or skipped cell is reopened by moving its row to spent and deleting it here, without a
# change of format. payload comes last: a sum over the other columns then does not read the pages that large
# payloads overflow to.
_LEARNED: Final = """CREATE TABLE learned (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL UNIQUE REFERENCES run (id),
        epoch INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        data BLOB NOT NULL
    )"""

_GENERATION: Final = """CREATE TABLE generation (
        run INTEGER NOT NULL REFERENCES run (id),
        id INTEGER NOT NULL,
        place INTEGER NOT NULL,
        fingerprint TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        PRIMARY KEY (run, id)
    ) WITHOUT ROWID"""

_TABLES: Final = (
    """CREATE TABLE run (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        status TEXT NOT NULL,
        created_at REAL NOT NULL,
        finished_at REAL
    )""",
    """CREATE TABLE run_column (
        run INTEGER NOT NULL REFERENCES run (id),
        id INTEGER NOT NULL,
        name TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        PRIMARY KEY (run, id),
        UNIQUE (run, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE input_row (
        run INTEGER NOT NULL REFERENCES run (id),
        position INTEGER NOT NULL,
        row_id TEXT NOT NULL,
        digest BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (run, position),
        UNIQUE (run, row_id)
    )""",
    """CREATE TABLE cell (
        run INTEGER NOT NULL,
        position INTEGER NOT NULL,
        col INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        status TEXT NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        http_status INTEGER,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        finished_at REAL NOT NULL,
        checksum INTEGER NOT NULL,
        payload BLOB,
        PRIMARY KEY (run, position, col),
        FOREIGN KEY (run, position) REFERENCES input_row (run, position),
        CHECK ((status = 'done') = (payload IS NOT NULL))
    )""",
    """CREATE TABLE held (
        run INTEGER NOT NULL,
        position INTEGER NOT NULL,
        col INTEGER NOT NULL,
        reason TEXT NOT NULL,
        not_before REAL NOT NULL,
        attempts INTEGER NOT NULL,
        history BLOB NOT NULL,
        PRIMARY KEY (run, position, col),
        FOREIGN KEY (run, position) REFERENCES input_row (run, position)
    )""",
    """CREATE TABLE spent (
        run INTEGER NOT NULL,
        position INTEGER NOT NULL,
        col INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        reason TEXT NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        PRIMARY KEY (run, position, col, epoch, attempt),
        FOREIGN KEY (run, position) REFERENCES input_row (run, position)
    )""",
    _LEARNED,
    _GENERATION,
)

_ADDED: Final = {2: (_LEARNED,), 3: (_GENERATION,)}
"""What each version added to the one before it. Nothing that was there has ever changed, so a reader of rows needs no
newer tables, and a file is brought up to date when it is opened for writing. From version 3 on a payload may be a
reference to a file."""


def connect(path: Path, *, query: str, busy_timeout_s: float = 5.0) -> sqlite3.Connection:
    """Open the file with the given URI query; transactions are begun by hand. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?{query}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_timeout_s)


def check_identity(path: Path) -> bool:
    """Return whether there is a store; False for a file that is missing or empty. It changes nothing.

    Raises SchemaMismatch for anything else than a store of a version that this one reads, StoreError for what cannot
    be read.
    """
    try:
        if not path.exists() or path.stat().st_size == 0:
            return False
        application_id, version = _identity(path)
    except sqlite3.Error as error:
        raise meaning_of(error, path) from error
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be looked at: {error.strerror}") from error
    if application_id != APPLICATION_ID:
        raise SchemaMismatch(f"{path} is not a headgate store: give the store another path")
    _check_version(version, path)
    return True


def _identity(path: Path) -> tuple[int, int]:
    """Return the application id and the version that the main file holds. Raises sqlite3.Error.

    Without a lock it may be looked at in the middle of a checkpoint, when its header tells of pages that are not there
    yet: SQLite takes that for damage. So it is looked at again while there is a log that somebody may be emptying.
    """
    log = path.with_name(f"{path.name}-wal")
    for _ in range(_LOOKS - 1):
        try:
            return _look(path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT or not log.exists():
                raise
        time.sleep(_LOOK_AGAIN_S)
    return _look(path)


def _look(path: Path) -> tuple[int, int]:
    with closing(connect(path, query="immutable=1")) as connection:
        return _pragma(connection, "application_id"), _pragma(connection, "user_version")


def create(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables that are not there, in one transaction. Raises sqlite3.Error, SchemaMismatch.

    The version is looked at again: a newer one may still stand in the log only.
    """
    if _is_current(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been quicker while this one waited for the lock.
        if not _is_current(connection):
            _bring_up(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "application_id") == APPLICATION_ID:
        version = _pragma(connection, "user_version")
        _check_version(version, path)
        tables = [table for added in range(version + 1, VERSION + 1) for table in _ADDED[added]]
    else:
        tables = list(_TABLES)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for table in tables:
        connection.execute(table)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _is_current(connection: sqlite3.Connection) -> bool:
    return (_pragma(connection, "application_id"), _pragma(connection, "user_version")) == (APPLICATION_ID, VERSION)


def _check_version(version: int, path: Path) -> None:
    """Raise SchemaMismatch unless this code reads files of that version."""
    if _OLDEST_VERSION <= version <= VERSION:
        return
    age, cure = ("newer", "upgrade headgate") if version > VERSION else ("older", "start a new store")
    raise SchemaMismatch(
        f"{path} was made by {age} headgate (its format is {version}, this one writes {VERSION}): "
        f"{cure}, or give the store another path"
    )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def meaning_of(error: sqlite3.Error, path: Path) -> StoreError:
    """Return the store error that an error of SQLite amounts to."""
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
            return SchemaMismatch(f"{path} is not a database: give the store another path")
        case sqlite3.SQLITE_CORRUPT:
            return ResultCorrupt(f"{said}: restore it from a copy, or rescue what is left with sqlite3's .recover")
        case sqlite3.SQLITE_TOOBIG:
            return PayloadTooLarge(said)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PROTOCOL | sqlite3.SQLITE_NOMEM:
            return StoreUnavailable(f"{said}: check the disk and the permissions of its directory")
        case _:
            return StoreError(said)
