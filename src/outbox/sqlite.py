"""Deliveries kept in one SQLite file: they survive the process, and power loss.

The file is one of its own, with an identity of its own, written by the thread that also writes SQLite stores
(:mod:`headgate.storage.sqlite_writer`): what many tasks add, note or end at the same time shares a commit. Bodies stand
in a table beside the items, so that noting an attempt does not rewrite them and loading does not read them.

Several processes may have one file open. Each sends what it has added or loaded; what another one has brought to its
end is not sent again by anybody who looks after that.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

from ..errors import ConfigError, PayloadTooLarge, ResultCorrupt
from ..log import logger
from ..storage.ports import Durability
from ..storage.sqlite_file import WritableFile
from ..storage.sqlite_format import FileFormat
from ..storage.sqlite_writer import Writer
from ..values import writable
from .ports import Kept
from .values import Answer, Item

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from os import PathLike

__all__ = ["SqliteDeliveries"]

_SYNCHRONOUS: Final = {Durability.HOST: "FULL", Durability.PROCESS: "NORMAL"}

_MAX_BODY: Final = 16 * 1024 * 1024
_MESSAGE_CHARS: Final = 500
_STEP: Final = 500

_FORMAT: Final = FileFormat(
    what="a headgate outbox",
    application_id=0x48474F42,  # "HGOB"
    version=1,
    tables=(
        """CREATE TABLE item (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            destination TEXT NOT NULL,
            created_at REAL NOT NULL,
            run TEXT,
            receiver TEXT,
            attempts INTEGER NOT NULL,
            not_before REAL NOT NULL,
            checksum INTEGER NOT NULL
        )""",
        """CREATE TABLE body (
            item INTEGER PRIMARY KEY REFERENCES item (id),
            checksum INTEGER NOT NULL,
            data BLOB NOT NULL
        )""",
        """CREATE TABLE ended (
            key TEXT PRIMARY KEY,
            answer TEXT NOT NULL,
            message TEXT NOT NULL,
            at REAL NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX ended_at ON ended (at)",
    ),
    added={},
)

_COLUMNS: Final = "id, key, destination, created_at, run, receiver, attempts, not_before, checksum"
_HAS_ENDED: Final = "SELECT 1 FROM ended WHERE key = ?"
_ADD: Final = """INSERT INTO item (key, destination, created_at, run, receiver, attempts, not_before, checksum)
    VALUES (?, ?, ?, ?, ?, 0, 0.0, ?) ON CONFLICT DO NOTHING"""
_BODY: Final = "SELECT item.id, item.destination, body.checksum, data FROM item JOIN body ON item = id WHERE key = ?"
_NOTE: Final = "UPDATE item SET receiver = ?, attempts = ?, not_before = ?, checksum = ? WHERE id = ?"
_END: Final = "INSERT INTO ended (key, answer, message, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_FORGET: Final = "DELETE FROM ended WHERE key IN (SELECT key FROM ended WHERE at <= ? ORDER BY at LIMIT ?)"


class SqliteDeliveries:
    """A :class:`~headgate.outbox.ports.Deliveries` in one file. Nothing is opened before the first use.

    ``durability`` HOST flushes each group commit to the disk, PROCESS leaves that to the system: then power loss may
    send again what had come to its end, and lose what was just added. ``busy_timeout_s`` is how long another process
    may hold the file, ``max_body`` the bytes of one body, ``max_bytes`` the size at which the file is StoreFull,
    ``clock`` gives wall-clock seconds. Raises ConfigError for a durability that one file cannot give.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        durability: Durability = Durability.HOST,
        busy_timeout_s: float = 30.0,
        max_body: int = _MAX_BODY,
        max_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if durability not in _SYNCHRONOUS:
            raise ConfigError(f"an outbox is durable at the level 'process' or 'host', not {str(durability)!r}")
        self._path = Path(path).absolute()
        self._max_body = max_body
        self._clock = clock
        synchronous = _SYNCHRONOUS[durability]
        self._writer = Writer(
            WritableFile(
                self._path, _FORMAT, synchronous=synchronous, busy_timeout_s=busy_timeout_s, max_bytes=max_bytes
            )
        )

    async def add(self, item: Item, body: bytes) -> bool:
        """See :meth:`headgate.outbox.ports.Deliveries.add`. Raises PayloadTooLarge."""
        if len(body) > self._max_body:
            raise PayloadTooLarge(
                f"item {item.key!r} has {len(body)} bytes, the outbox takes {self._max_body}: send where the bulk is "
                "to be had, or raise max_body"
            )
        kept = Kept(item, 0, 0.0)

        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute(_HAS_ENDED, (item.key,)).fetchone() is not None:
                return False
            who = (item.key, item.destination, item.created_at, item.run, item.receiver, _head_checksum(kept))
            added = connection.execute(_ADD, who)
            if not added.rowcount:
                return False
            row = (added.lastrowid, _body_checksum(item.key, item.destination, body), body)
            connection.execute("INSERT INTO body (item, checksum, data) VALUES (?, ?, ?)", row)
            return True

        return await self._writer.run(work, prepare=lambda: len(body))

    async def body(self, key: str) -> bytes | None:
        """See :meth:`headgate.outbox.ports.Deliveries.body`."""

        def work(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(_BODY, (key,)).fetchone()
            if row is None:
                _check_ended(connection, key)
                return None
            _, destination, checksum, data = row
            if not isinstance(data, bytes) or _body_checksum(key, destination, data) != checksum:
                raise ResultCorrupt(f"{self._path}: the body of item {key!r} does not match its checksum")
            return data

        return await self._writer.run(work, writes=False)

    async def postpone(self, key: str, attempts: int, not_before: float, receiver: str | None) -> None:
        """See :meth:`headgate.outbox.ports.Deliveries.postpone`."""

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute(f"SELECT {_COLUMNS} FROM item WHERE key = ?", (key,)).fetchone()  # noqa: S608
            if row is None or attempts <= row[6]:
                return
            was = _kept(row)
            now = Kept(replace(was.item, receiver=receiver), attempts, not_before)
            connection.execute(_NOTE, (receiver, attempts, not_before, _head_checksum(now), row[0]))

        await self._writer.run(work)

    async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
        """See :meth:`headgate.outbox.ports.Deliveries.end`."""
        at = self._clock()

        def work(connection: sqlite3.Connection) -> None:
            for key, answer, message in ended:
                _end(connection, key, answer, message, at)

        await self._writer.run(work)

    async def load(self) -> list[Kept]:
        """See :meth:`headgate.outbox.ports.Deliveries.load`. Makes the file if it is missing.

        An item that is damaged, so that nobody knows any more what is to be sent where, ends as rejected, and is
        logged: the others go on.
        """

        def work(connection: sqlite3.Connection) -> tuple[list[Kept], list[str]]:
            kept: list[Kept] = []
            damaged: list[str] = []
            for row in connection.execute(f"SELECT {_COLUMNS} FROM item ORDER BY id").fetchall():  # noqa: S608
                one = _kept(row)
                if _head_intact(one, row[8]):
                    kept.append(one)
                else:
                    _end(connection, one.item.key, Answer.REJECTED, _DAMAGED, self._clock())
                    damaged.append(one.item.key)
            return kept, damaged

        kept, damaged = await self._writer.run(work)
        for key in damaged:
            logger().error("outbox_item_damaged", key=key, path=str(self._path))
        return kept

    async def runs(self) -> frozenset[str]:
        """Return the runs whose results receivers of items will come for; see ``spare`` of a store's ``sweep``."""

        def work(connection: sqlite3.Connection) -> frozenset[str]:
            return frozenset(
                run for (run,) in connection.execute("SELECT DISTINCT run FROM item WHERE run IS NOT NULL")
            )

        return await self._writer.run(work, writes=False)

    async def outcome(self, key: str) -> tuple[Answer, str] | None:
        """Return how the item ended, and what was said to it; None if it has not, or is unknown."""

        def work(connection: sqlite3.Connection) -> tuple[Answer, str] | None:
            row = connection.execute("SELECT answer, message FROM ended WHERE key = ?", (writable(key),)).fetchone()
            return None if row is None else (Answer(row[0]), row[1])

        return await self._writer.run(work, writes=False)

    async def sweep(self, *, keep_s: float) -> int:
        """Forget the keys of items that ended at least ``keep_s`` seconds ago, and return how many.

        Adding such a key again delivers it again: keep them for as long as a run may be resumed.
        """
        if not keep_s >= 0:
            raise ConfigError(f"keep_s={keep_s}: zero seconds or more")
        before = self._clock() - keep_s

        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(_FORGET, (before, _STEP)).rowcount

        forgotten = 0
        while some := await self._writer.run(work):
            forgotten += some
        return forgotten

    async def aclose(self) -> None:
        """Finish what was handed in, empty the log into the file, close it."""
        await self._writer.aclose()


_DAMAGED: Final = "it was damaged where it was kept"


def _end(connection: sqlite3.Connection, key: str, answer: Answer, message: str, at: float) -> None:
    connection.execute(_END, (key, str(answer), writable(message[:_MESSAGE_CHARS]), at))
    connection.execute("DELETE FROM body WHERE item = (SELECT id FROM item WHERE key = ?)", (key,))
    connection.execute("DELETE FROM item WHERE key = ?", (key,))


def _check_ended(connection: sqlite3.Connection, key: str) -> None:
    """Nothing is kept under ``key`` because it has come to its end, or is unknown. Raises ResultCorrupt."""
    if connection.execute("SELECT 1 FROM item WHERE key = ?", (key,)).fetchone() is not None:
        raise ResultCorrupt(f"the body of item {key!r} is missing")


def _kept(row: Sequence[object]) -> Kept:
    _, key, destination, created_at, run, receiver, attempts, not_before, _ = row
    return Kept(Item(key, destination, created_at, receiver, run), attempts, not_before)  # type: ignore[arg-type]


def _head_checksum(kept: Kept) -> int:
    return crc32(ascii(_head(kept)).encode())


def _head_intact(kept: Kept, checksum: int) -> bool:
    # It used to be of repr(), which writes out as they are the characters that this version of Python knows.
    return checksum in (_head_checksum(kept), crc32(repr(_head(kept)).encode(errors="backslashreplace")))


def _head(kept: Kept) -> tuple[object, ...]:
    item = kept.item
    times = (float(item.created_at), float(kept.not_before))  # as they come back
    return (item.key, item.destination, item.receiver, item.run, kept.attempts, times)


def _body_checksum(key: str, destination: str, body: bytes) -> int:
    """Of a body together with where it goes, so that no body is ever sent as another's."""
    return crc32(body, crc32(f"{key}\n{destination}\n".encode(errors="backslashreplace")))
