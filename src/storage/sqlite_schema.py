"""The tables of the SQLite store, and what its versions added; see :mod:`headgate.storage.sqlite_format`."""

from __future__ import annotations

from typing import Final

from .sqlite_format import FileFormat

__all__ = ["APPLICATION_ID", "GENERATIONS_SINCE", "STORE", "SWEPT", "VERSION"]

APPLICATION_ID: Final = 0x48474154  # "HGAT"
VERSION: Final = 5

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

_REGISTER: Final = """CREATE TABLE register (
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        data BLOB NOT NULL
    )"""

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
    _REGISTER,
)

_ADDED: Final = {2: (_LEARNED,), 3: (_GENERATION,), 4: (_REGISTER,), 5: ()}
"""What each version added to the one before it. Nothing that was there has ever changed, so a reader of rows needs no
newer tables, and a file is brought up to date when it is opened for writing. From version 3 on a payload may be a
reference to a file, from version 5 on checksums cover all of a row or a cell and its key."""

STORE: Final = FileFormat("a headgate store", APPLICATION_ID, VERSION, _TABLES, _ADDED)
"""What a SqliteStore writes."""
