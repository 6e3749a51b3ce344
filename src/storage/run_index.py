"""What the logs of runs amount to, as tables to ask: a private copy in SQLite that can always be made again.

The tables are those of the SQLite store, and so is what is done to them: an entry of a log is applied by the functions
that the SQLite store writes with, so that all stores keep the same rules. The database is a temporary one that SQLite
removes when it is closed. It holds no truth: what is in the log and not here is read in by ``catch_up``.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import finalize

from . import sqlite_records, sqlite_sweep
from .file_entry import Commits, Dropped, Ended, Opening
from .run_log import START
from .sqlite_schema import STORE

if TYPE_CHECKING:
    from .file_entry import Entry
    from .ports import Durability
    from .run_log import Place, RunLog

__all__ = ["RunIndex"]

_PLACES: Final = "CREATE TABLE followed (run TEXT PRIMARY KEY, segment INTEGER NOT NULL, slot INTEGER NOT NULL)"
_PLACE: Final = "SELECT segment, slot FROM followed WHERE run = ?"
_MOVE: Final = "INSERT OR REPLACE INTO followed VALUES (?, ?, ?)"
_SPOIL_ROW: Final = "UPDATE input_row SET checksum = -1 WHERE run = ? AND position = ?"
_SPOIL_CELL: Final = "UPDATE cell SET checksum = -1 WHERE run = ? AND position = ? AND col = ?"


class RunIndex:
    """The tables of the runs that were looked at. Calls come from one thread at a time, which begins and ends the
    transactions: how far a log was read is in the tables too, and is undone with what was read.
    """

    def __init__(self, durability: Durability) -> None:
        self._durability = durability
        self.connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # A store can be read for as long as it is there, so nobody but the end of the index closes the connection; one
        # that nobody closes is a warning from Python 3.13 on.
        finalize(self, self.connection.close)
        self.connection.execute("PRAGMA synchronous = OFF")
        self.connection.execute("PRAGMA journal_mode = MEMORY")
        self.connection.execute("PRAGMA foreign_keys = ON")
        STORE.create(self.connection, Path("a temporary database"))
        self.connection.execute(_PLACES)

    def place(self, run: str) -> Place:
        """Where the log of ``run`` goes on."""
        segment, slot = self.connection.execute(_PLACE, (run,)).fetchone() or START
        return segment, slot

    def move(self, run: str, place: Place) -> None:
        """What stands before ``place`` in the log of ``run`` is in the tables."""
        self.connection.execute(_MOVE, (run, *place))

    def catch_up(self, run: str, log: RunLog) -> None:
        """Apply what was appended to ``log`` since the last call. Raises OSError, ResultCorrupt, sqlite3.Error."""
        opened: sqlite_records.Opened | None = None
        for place, entry in log.read(self.place(run)):
            opened = self.apply(run, entry, place[0], opened)
            self.move(run, place)

    def apply(
        self, run: str, entry: Entry, epoch: int, opened: sqlite_records.Opened | None
    ) -> sqlite_records.Opened | None:
        """Apply one entry, of the segment ``epoch`` if it begins an epoch; return the opening that the next one belongs
        to, where it is known.
        """
        connection = self.connection
        match entry:
            case Opening():
                changed = {"renewed": entry.renewed, "kept": entry.kept}
                return sqlite_records.open_run(
                    connection, run, entry.fingerprints, entry.at, self._durability, epoch=epoch, **changed
                )
            case Commits():
                opened = opened or sqlite_records.opened(connection, run, self._durability)
                for batch in entry.batches:
                    sqlite_records.write_batch(connection, opened, batch)
                self._spoil(opened, entry)
            case Ended():
                opened = opened or sqlite_records.opened(connection, run, self._durability)
                sqlite_records.finish(connection, opened, entry.status, entry.at)
            case Dropped():
                self._drop(run, entry, epoch)
                return None
            case _:
                pass
        return opened

    def _drop(self, run: str, entry: Dropped, epoch: int) -> None:
        connection = self.connection
        number = sqlite_records.open_run(connection, run, {}, entry.at, self._durability, epoch=epoch).number
        if entry.learned is not None:
            sqlite_records.learn(connection, number, epoch, entry.learned)
        sqlite_sweep.clear(connection, number)
        sqlite_sweep.drop(connection, run, epoch)

    def _spoil(self, opened: sqlite_records.Opened, entry: Commits) -> None:
        """Let what is damaged in the log be found damaged here, when somebody reads it."""
        for row, column in entry.damaged:
            if column is None:
                self.connection.execute(_SPOIL_ROW, (opened.number, row))
            else:
                self.connection.execute(_SPOIL_CELL, (opened.number, row, opened.columns[column]))
