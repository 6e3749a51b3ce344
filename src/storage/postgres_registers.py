"""Registers in a PostgreSQL database: a row that is replaced if its version is the one that the writer knows.

One statement is one compare-and-set. If the connection breaks before its answer, it is sent again, and must find out
whether it was done: so each write draws a name for itself, which stands beside the content.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from ..errors import StoreUnavailable
from ..values import writable
from . import rules

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["RegisterWrite", "read"]

_READ: Final = "SELECT version, checksum, data FROM register WHERE name = %s"
_WRITTEN_BY: Final = "SELECT version, writer FROM register WHERE name = %s"
_CREATE: Final = """INSERT INTO register (version, writer, checksum, data, name) VALUES (1, %s, %s, %s, %s)
    ON CONFLICT DO NOTHING"""
_REPLACE: Final = """UPDATE register SET version = version + 1, writer = %s, checksum = %s, data = %s
    WHERE name = %s AND version = %s"""


def read(connection: Connection[Any], name: str) -> tuple[int, bytes]:
    """Return the version and the content; 0 and nothing if it was never written. Raises ResultCorrupt."""
    found = connection.execute(_READ, (_key(name),)).fetchone()
    if found is None:
        return 0, b""
    version, checksum, data = found
    return version, rules.checked_register(name, data, intact=crc32(data) == checksum)


class RegisterWrite:
    """One write, however often it has to be sent."""

    def __init__(self, name: str, data: bytes, after: int) -> None:
        rules.check_register(name, data, after)
        self._name = name
        self._key = _key(name)
        self._data = data
        self._after = after
        self._writer = secrets.token_bytes(16)
        self._sent = False

    def act(self, connection: Connection[Any]) -> bool:
        """Replace the content if its version is the right one. Raises StoreUnavailable if nobody knows any more."""
        again, self._sent = self._sent, True
        content = (self._writer, crc32(self._data), self._data, self._key)
        if self._after:
            done = connection.execute(_REPLACE, (*content, self._after))
        else:
            done = connection.execute(_CREATE, content)
        return done.rowcount == 1 or (again and self._was_done(connection))

    def _was_done(self, connection: Connection[Any]) -> bool:
        found = connection.execute(_WRITTEN_BY, (self._key,)).fetchone()
        version, writer = found or (0, b"")
        if version > self._after + 1:
            raise StoreUnavailable(f"register {self._name!r} was written again while an answer was lost")
        return version == self._after + 1 and writer == self._writer


def _key(name: str) -> bytes:
    return writable(name).encode()
