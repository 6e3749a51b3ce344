"""Records into a table, many with one statement.

``executemany`` takes a step of SQLite for each record, and sqlite3 lets go of the interpreter's lock for every step.
Beside a busy event loop the thread then waits for that lock each time, up to the switch interval of 5 ms: a batch of
4,000 records took half a second, of which a tenth was work, and the batches grew with the time that they took. One
statement for many records takes one step for all of them.

What a statement binds is copied while the lock is held, so records of many bytes share it with fewer others.
"""

from __future__ import annotations

import sqlite3
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Record = tuple[object, ...]

__all__ = ["BYTES_TOGETHER", "RECORDS_TOGETHER", "Insert"]

RECORDS_TOGETHER: Final = (1024, 256, 64, 16, 4)
"""How many records the statements are for that take several. Few kinds, because SQLite keeps each one prepared, the
largest in 1 MiB; it takes some milliseconds to bind. A cell has 14 values, of which SQLite before 3.32 takes 999."""

BYTES_TOGETHER: Final = 1024 * 1024
"""Bytes in the last fields of the records of one statement: half a millisecond to copy."""


class Insert:
    """Inserts into ``table`` records of ``width`` fields, of which the last is a blob or None."""

    __slots__ = ("_one", "_several", "_width")

    def __init__(self, table: str, width: int) -> None:
        self._width = width
        self._one = _statement(table, width, 1)
        self._several = tuple((size, _statement(table, width, size)) for size in RECORDS_TOGETHER)

    def into(self, connection: sqlite3.Connection, records: Iterable[Record]) -> int:
        """Insert those that do not exist yet, and return how many those were. Raises sqlite3.Error."""
        most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // self._width
        several = tuple((size, statement) for size, statement in self._several if size <= most)
        left, new = iter(records), 0
        while part := list(islice(left, RECORDS_TOGETHER[0])):
            new += self._insert(connection, part, several)
        return new

    def _insert(
        self, connection: sqlite3.Connection, records: Sequence[Record], several: Sequence[tuple[int, str]]
    ) -> int:
        if not several:
            return connection.executemany(self._one, records).rowcount
        (size, statement), *smaller = several
        new = 0
        for start in range(0, len(records), size):
            part = records[start : start + size]
            if len(part) == size and _bytes(part) <= BYTES_TOGETHER:
                new += connection.execute(statement, tuple(chain.from_iterable(part))).rowcount
            else:
                new += self._insert(connection, part, smaller)
        return new


def _bytes(records: Sequence[Record]) -> int:
    return sum(len(record[-1]) for record in records if isinstance(record[-1], bytes))


def _statement(table: str, width: int, records: int) -> str:
    record = f"({', '.join('?' * width)})"
    return f"INSERT INTO {table} VALUES {', '.join([record] * records)} ON CONFLICT DO NOTHING"  # noqa: S608 - our own
