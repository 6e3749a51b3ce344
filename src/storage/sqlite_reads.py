"""What is read from a SQLite store: runs, rows with all that is committed about them, tokens, what was learned.

Plain functions on a connection; who calls them begins and ends the transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn
from zlib import crc32

from ..errors import ResultCorrupt
from ..values import Usage
from . import references, sqlite_columns
from .ports import NOT_RENEWED, CellRecord, CellStatus, HeldRecord, RowRecord, RunInfo, StoredRow
from .sqlite_checksums import cell_intact, row_intact
from .sqlite_schema import SWEPT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from .ports import Durability

__all__ = [
    "count_outcomes",
    "find",
    "learned",
    "load",
    "own_learned",
    "read_info",
    "read_learned",
    "read_runs",
    "read_spent",
    "unreferenced",
]

_SELECT_ROWS: Final = """SELECT position, row_id, digest, checksum, data FROM input_row
    WHERE run = ? AND position >= ? AND position < ? ORDER BY position LIMIT ?"""
_SELECT_CELLS: Final = """SELECT position, col, epoch, status, reason, message, attempts, http_status, input_tokens,
    output_tokens, finished_at, checksum, payload FROM cell
    WHERE run = ? AND position >= ? AND position <= ? ORDER BY position, col"""
_SELECT_HELD: Final = """SELECT position, col, reason, not_before, attempts, history FROM held
    WHERE run = ? AND position >= ? AND position <= ? ORDER BY position, col"""
# The run's own before any other's; the id grows with each replacement, so the largest is the latest.
_SELECT_LEARNED: Final = "SELECT checksum, data FROM learned ORDER BY run = ? DESC, id DESC LIMIT 1"
_REFERENCES: Final = "SELECT payload FROM cell WHERE run = ? AND position = ? AND substr(payload, 1, 1) = x'00'"


def learned(connection: sqlite3.Connection, number: int) -> bytes | None:
    """Return what the run learned last, or else any other; None if nothing, or if it does not match its checksum."""
    return _intact(connection.execute(_SELECT_LEARNED, (number,)).fetchone())


def own_learned(connection: sqlite3.Connection, number: int) -> bytes | None:
    """Return what the run itself learned last; None if nothing, or if it does not match its checksum."""
    return _intact(connection.execute("SELECT checksum, data FROM learned WHERE run = ?", (number,)).fetchone())


def find(connection: sqlite3.Connection, run: str, row_ids: Sequence[str]) -> dict[str, int]:
    """Return the positions of the known ids. Raises UnknownRun, ResultExpired."""
    number = sqlite_columns.number_of(connection, run)
    query = "SELECT row_id, position FROM input_row WHERE run = ? AND row_id = ?"
    return dict(row for row_id in row_ids for row in connection.execute(query, (number, row_id)))


def load(
    connection: sqlite3.Connection,
    run: str,
    first: int,
    last: int,
    *,
    most: int = -1,
    renewed: Mapping[str, str] = NOT_RENEWED,
) -> list[StoredRow]:
    """Return ``most`` rows (all if negative) from ``first`` on, below ``last``, as if columns had been ``renewed``.

    Raises UnknownRun, ResultExpired, ResultCorrupt.
    """
    number = sqlite_columns.number_of(connection, run)
    records = [
        RowRecord(position, row_id, digest, data)
        if row_intact(checksum, number, position, row_id, digest, data)
        else _damaged(run, position, "the input row")
        for position, row_id, digest, checksum, data in connection.execute(_SELECT_ROWS, (number, first, last, most))
    ]
    if not records:
        return []
    columns = sqlite_columns.columns_as_if(connection, number, renewed)
    names = {column.number: name for name, column in columns.items()}
    order = {name: column.place for name, column in columns.items()}
    span = (number, records[0].row, records[-1].row)
    cells: dict[int, list[CellRecord]] = {}
    for (
        row,
        col,
        epoch,
        status,
        reason,
        message,
        attempts,
        http,
        tokens_in,
        tokens_out,
        at,
        checksum,
        payload,
    ) in connection.execute(_SELECT_CELLS, span):
        if col not in names:
            continue  # of a generation that is not read now
        head = (number, row, col, epoch, status, reason, message, attempts, http, tokens_in, tokens_out, at)
        ended = _status(status, run, row)
        if not cell_intact(checksum, head, payload):
            _damaged(run, row, f"column {names[col]!r}")
        usage = Usage(tokens_in, tokens_out)
        cells.setdefault(row, []).append(
            CellRecord(row, names[col], ended, payload, reason, message, attempts, http, usage, at)
        )
    held: dict[int, list[HeldRecord]] = {}
    for row, col, *rest in connection.execute(_SELECT_HELD, span):
        if col not in names:
            continue
        held.setdefault(row, []).append(HeldRecord(row, names[col], *rest))
    if min(names, default=0) < 0:  # numbers of later generations are not in the order of columns
        for row in {*cells, *held}:
            cells.get(row, []).sort(key=lambda one: order[one.column])
            held.get(row, []).sort(key=lambda one: order[one.column])
    return [StoredRow(record, tuple(cells.get(record.row, ())), tuple(held.get(record.row, ()))) for record in records]


def unreferenced(connection: sqlite3.Connection, number: int, files: Iterable[tuple[int, str]]) -> list[str]:
    """Return those of the files, each with the row that it belongs to, that no cell of the run refers to."""
    return [file for row, file in files if file not in _referred(connection, number, row)]


def read_info(connection: sqlite3.Connection, run: str, durability: Durability) -> RunInfo:
    """Return the run as it is now. Raises UnknownRun, ResultExpired."""
    number = sqlite_columns.number_of(connection, run)
    query = "SELECT epoch, status, created_at, finished_at FROM run WHERE id = ?"
    epoch, status, created_at, finished_at = connection.execute(query, (number,)).fetchone()
    (rows,) = connection.execute("SELECT count(*) FROM input_row WHERE run = ?", (number,)).fetchone()
    columns = sqlite_columns.columns(connection, number)
    fingerprints = {name: one.fingerprint for name, one in columns.items()}
    aside = sqlite_columns.fingerprints_aside(connection, number, columns)
    return RunInfo(run, epoch, fingerprints, status, rows, created_at, finished_at, durability, aside)


def read_runs(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of the runs that can be read, sorted."""
    found = connection.execute("SELECT name FROM run WHERE status != ?", (SWEPT,))
    return tuple(sorted(name for (name,) in found))


def read_spent(connection: sqlite3.Connection, run: str) -> dict[str, Usage]:
    """Return the tokens on record per column. Raises UnknownRun, ResultExpired."""
    number = sqlite_columns.number_of(connection, run)
    sums = connection.execute(sqlite_columns.spent_query(connection), {"run": number})
    return {name: Usage(tokens_in, tokens_out) for name, tokens_in, tokens_out in sums}


def read_learned(connection: sqlite3.Connection, run: str) -> bytes | None:
    """Return what the run itself learned last, if it is intact. Raises UnknownRun, ResultExpired."""
    return own_learned(connection, sqlite_columns.number_of(connection, run))


def count_outcomes(connection: sqlite3.Connection, run: str) -> int:
    """Return how many cells have an outcome, in any generation. Raises UnknownRun, ResultExpired."""
    found = connection.execute("SELECT count(*) FROM cell WHERE run = ?", (sqlite_columns.number_of(connection, run),))
    return int(found.fetchone()[0])


def _referred(connection: sqlite3.Connection, number: int, row: int) -> set[str]:
    found = connection.execute(_REFERENCES, (number, row))
    return {file for (payload,) in found for file in references.files_of(payload)}


def _status(text: str, run: str, row: int) -> CellStatus:
    try:
        return CellStatus(text)
    except ValueError:
        raise ResultCorrupt(f"row {row} of run {run!r}: a cell has the status {text!r}, which is none") from None


def _damaged(run: str, row: int, what: str) -> NoReturn:
    raise ResultCorrupt(f"row {row} of run {run!r}: {what} does not match its checksum: restore it from a copy")


def _intact(found: tuple[int, object] | None) -> bytes | None:
    """Return what was learned. Damaged, it is as good as never learned."""
    if found is None:
        return None
    checksum, data = found
    return data if isinstance(data, bytes) and crc32(data) == checksum else None
