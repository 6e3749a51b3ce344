"""Registers in the file: a name, a version, a content, changed if the version is the one that the writer knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

from ..values import writable
from . import rules

if TYPE_CHECKING:
    import sqlite3

__all__ = ["read", "write"]

_READ: Final = "SELECT version, checksum, data FROM register WHERE name = ?"
_CREATE: Final = "INSERT INTO register (version, checksum, data, name) VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING"
_REPLACE: Final = """UPDATE register SET version = version + 1, checksum = ?, data = ?
    WHERE name = ? AND version = ?"""


def read(connection: sqlite3.Connection, name: str) -> tuple[int, bytes]:
    """Return the version and the content; 0 and nothing if it was never written. Raises ResultCorrupt."""
    found = connection.execute(_READ, (writable(name),)).fetchone()
    if found is None:
        return 0, b""
    version, checksum, data = found
    return version, rules.checked_register(name, data, intact=crc32(data) == checksum)


def write(connection: sqlite3.Connection, name: str, data: bytes, after: int) -> bool:
    """Replace the content if its version is ``after``."""
    name = writable(name)
    if after:
        changed = connection.execute(_REPLACE, (crc32(data), data, name, after))
    else:
        changed = connection.execute(_CREATE, (crc32(data), data, name))
    return changed.rowcount == 1
