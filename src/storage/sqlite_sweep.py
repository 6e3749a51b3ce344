"""What a sweep does to the tables: runs that ended long ago are marked first, and emptied in small steps after.

A run that is marked cannot be read or written any more; its name and epoch stay, so that a writer that was paused all
the while is fenced out however late it comes. The steps are transactions of their own: nobody else waits long for the
lock, and what one sweep leaves over is taken up by the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import sqlite_columns
from .sqlite_schema import SWEPT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

__all__ = ["clear", "clear_some", "drop", "ended", "epoch_of", "epochs"]

_ENDED: Final = "SELECT name, status FROM run WHERE finished_at <= ?"
_DROP: Final = "UPDATE run SET epoch = coalesce(?, epoch + 1), status = ? WHERE name = ?"
_LEFT: Final = """SELECT id FROM run WHERE status = ? AND EXISTS (
    SELECT 1 FROM input_row WHERE run = run.id) LIMIT 1"""
_LAST_OF_SOME: Final = """SELECT max(position) FROM (
    SELECT position FROM input_row WHERE run = ? ORDER BY position LIMIT ?)"""
_BY_POSITION: Final = ("cell", "held", "spent", "input_row")  # the rows last: the others refer to them
_STEP_ROWS: Final = 500


def ended(
    connection: sqlite3.Connection, before: float, statuses: Collection[str], spare: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the runs that ended with one of ``statuses`` at ``before`` (wall-clock seconds) or earlier."""
    found = connection.execute(_ENDED, (before,))
    return tuple(name for name, status in found if status in statuses and name not in spare)


def epochs(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return the number and the epoch of every run; in that of a drop nobody writes."""
    return connection.execute("SELECT id, epoch FROM run").fetchall()


def epoch_of(connection: sqlite3.Connection, run: str) -> tuple[int, int]:
    """Return the number and the epoch of a run that is known."""
    number, epoch = connection.execute("SELECT id, epoch FROM run WHERE name = ?", (run,)).fetchone()
    return number, epoch


def drop(connection: sqlite3.Connection, run: str, epoch: int | None = None) -> None:
    """Let nobody read or write the run, in ``epoch`` or else the next one, until it is opened anew."""
    connection.execute(_DROP, (epoch, SWEPT, run))
    sqlite_columns.forget(connection, run)


def clear_some(connection: sqlite3.Connection) -> bool:
    """Delete some rows of a run that was dropped; return whether there were any."""
    left = connection.execute(_LEFT, (SWEPT,)).fetchone()
    if left is None:
        return False
    (last,) = connection.execute(_LAST_OF_SOME, (left[0], _STEP_ROWS)).fetchone()
    _clear(connection, left[0], last)
    return True


def clear(connection: sqlite3.Connection, number: int) -> None:
    """Delete all rows of a run."""
    (last,) = connection.execute("SELECT max(position) FROM input_row WHERE run = ?", (number,)).fetchone()
    if last is not None:
        _clear(connection, number, last)


def _clear(connection: sqlite3.Connection, number: int, last: int) -> None:
    for table in _BY_POSITION:
        connection.execute(f"DELETE FROM {table} WHERE run = ? AND position <= ?", (number, last))  # noqa: S608
