"""What the SQLite store does inside a transaction: open a run, write a batch, read rows back.

Plain functions on a connection; who calls them begins and ends the transaction, and rolls it back when they
raise. Refusals are worded in :mod:`headgate.storage.rules`. The usual batch is all new, so it is inserted
with statements that ignore what exists; only if something was ignored is each record compared with the stored
one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from zlib import crc32

from ..errors import ResultCorrupt
from ..values import Usage
from . import references, rules, sqlite_columns, sqlite_sweep
from .codec import storable
from .ports import NOT_RENEWED, RUNNING, CellRecord, CellStatus, HeldRecord, RowRecord, RunInfo, StoredRow
from .sqlite_insert import Insert
from .sqlite_schema import SWEPT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .ports import Batch, Durability

__all__ = [
    "Opened",
    "count_outcomes",
    "find",
    "finish",
    "learn",
    "load",
    "open_run",
    "opened",
    "own_learned",
    "read_info",
    "read_learned",
    "read_spent",
    "unreferenced",
    "write_batch",
]

_ROWS: Final = Insert("input_row", 6)
_CELLS: Final = Insert("cell", 14)
_INSERT_SPENT: Final = "INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
# A cell that is terminal is not held any more, however late somebody says so.
_INSERT_HELD: Final = """INSERT OR REPLACE INTO held SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
    WHERE NOT EXISTS (SELECT 1 FROM cell WHERE run = ?1 AND position = ?2 AND col = ?3)"""
_REPLACE_LEARNED: Final = "INSERT OR REPLACE INTO learned (run, epoch, checksum, data) VALUES (?, ?, ?, ?)"
_REFER: Final = "UPDATE cell SET payload = ?, checksum = ? WHERE run = ? AND position = ? AND col = ?"
_REFERENCES: Final = "SELECT payload FROM cell WHERE run = ? AND position = ? AND substr(payload, 1, 1) = x'00'"
_DELETE_HELD: Final = "DELETE FROM held WHERE run = ? AND position = ? AND col = ?"
_ANY_HELD: Final = "SELECT EXISTS (SELECT 1 FROM held WHERE run = ?)"

_ENDED: Final = "FROM cell WHERE run = ? AND position = ? AND col = ? AND epoch < ? AND status != 'done'"
_REMEMBER_ENDED: Final = f"""INSERT INTO spent
    SELECT run, position, col, epoch, 0, reason, input_tokens, output_tokens {_ENDED}"""
_DELETE_ENDED: Final = f"DELETE {_ENDED}"

_ROW_AT: Final = "SELECT position, row_id, digest FROM input_row WHERE run = ? AND position = ?"
_ROW_CALLED: Final = "SELECT position, row_id, digest FROM input_row WHERE run = ? AND row_id = ?"
_SELECT_ROWS: Final = """SELECT position, row_id, digest, checksum, data FROM input_row
    WHERE run = ? AND position >= ? AND position < ? ORDER BY position LIMIT ?"""
_SELECT_CELLS: Final = """SELECT position, col, status, reason, message, attempts, http_status, input_tokens,
    output_tokens, finished_at, checksum, payload FROM cell
    WHERE run = ? AND position >= ? AND position <= ? ORDER BY position, col"""
_SELECT_HELD: Final = """SELECT position, col, reason, not_before, attempts, history FROM held
    WHERE run = ? AND position >= ? AND position <= ? ORDER BY position, col"""
# The run's own before any other's; the id grows with each replacement, so the largest is the latest.
_SELECT_LEARNED: Final = "SELECT checksum, data FROM learned ORDER BY run = ? DESC, id DESC LIMIT 1"
_WORDS: Final = {status: str(status) for status in CellStatus}  # sqlite3 asks any subclass of str what it stands for


@dataclass(frozen=True, slots=True)
class Opened:
    """One opening of one run: who may write, under which numbers, and what was learned until then."""

    number: int
    columns: Mapping[str, int]
    info: RunInfo
    learned: bytes | None


def open_run(
    connection: sqlite3.Connection,
    run: str,
    fingerprints: Mapping[str, str],
    now: float,
    durability: Durability,
    *,
    epoch: int | None = None,
    renewed: Collection[str] = (),
    kept: Collection[str] = (),
) -> Opened:
    """Create the run, and let ``epoch``, or else the next one, begin. Raises FingerprintMismatch."""
    insert = "INSERT INTO run (name, epoch, status, created_at) VALUES (?, 0, ?, ?) ON CONFLICT DO NOTHING"
    connection.execute(insert, (run, RUNNING, now))
    _begin_anew(connection, run, now)
    number = sqlite_columns.number_of(connection, run)
    update = "UPDATE run SET epoch = coalesce(?, epoch + 1), status = ?, finished_at = NULL WHERE id = ?"
    connection.execute(update, (epoch, RUNNING, number))
    (now_is,) = connection.execute("SELECT epoch FROM run WHERE id = ?", (number,)).fetchone()
    sqlite_columns.open_columns(connection, (run, number), now_is, fingerprints, renewed=renewed, kept=kept)
    return opened(connection, run, durability)


def opened(connection: sqlite3.Connection, run: str, durability: Durability) -> Opened:
    """Return the latest opening of the run. Raises UnknownRun."""
    number = sqlite_columns.number_of(connection, run)
    columns = {name: column.number for name, column in sqlite_columns.columns(connection, number).items()}
    return Opened(number, columns, read_info(connection, run, durability), _read_learned(connection, number))


def write_batch(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    """Write a batch. Raises what :meth:`headgate.storage.ports.RunHandle.commit` names."""
    _check_epoch(connection, opened)
    try:
        _write_rows(connection, opened, batch)
        _reopen(connection, opened, batch)
        _write_cells(connection, opened, batch)
        _write_held(connection, opened, batch)
        _write_spent(connection, opened, batch)
        _write_learned(connection, opened, batch)
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            raise
        raise rules.unknown_row(opened.info.run, _missing_row(connection, opened, batch)) from error


def finish(connection: sqlite3.Connection, opened: Opened, status: str, now: float) -> None:
    """Record how the run ended. Raises FencedOut."""
    _check_epoch(connection, opened)
    connection.execute("UPDATE run SET status = ?, finished_at = ? WHERE id = ?", (status, now, opened.number))


def learn(connection: sqlite3.Connection, number: int, epoch: int, data: bytes) -> None:
    """Replace what the run has learned."""
    connection.execute(_REPLACE_LEARNED, (number, epoch, crc32(data), data))


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
        RowRecord(position, row_id, digest, _checked(data, checksum, run, position, "the input row"))
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
        usage = Usage(tokens_in, tokens_out)
        kept = None if payload is None else _checked(payload, checksum, run, row, f"column {names[col]!r}")
        cells.setdefault(row, []).append(
            CellRecord(row, names[col], _status(status, run, row), kept, reason, message, attempts, http, usage, at)
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
    fingerprints = {name: one.fingerprint for name, one in sqlite_columns.columns(connection, number).items()}
    return RunInfo(run, epoch, fingerprints, status, rows, created_at, finished_at, durability)


def read_runs(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of the runs that can be read, sorted."""
    found = connection.execute("SELECT name FROM run WHERE status != ?", (SWEPT,))
    return tuple(sorted(name for (name,) in found))


def read_spent(connection: sqlite3.Connection, run: str) -> dict[str, Usage]:
    """Return the tokens on record per column. Raises UnknownRun, ResultExpired."""
    sums = connection.execute(sqlite_columns.spent_query(connection), (sqlite_columns.number_of(connection, run),))
    return {name: Usage(tokens_in, tokens_out) for name, tokens_in, tokens_out in sums}


def read_learned(connection: sqlite3.Connection, run: str) -> bytes | None:
    """Return what the run itself learned last, if it is intact. Raises UnknownRun, ResultExpired."""
    return own_learned(connection, sqlite_columns.number_of(connection, run))


def count_outcomes(connection: sqlite3.Connection, run: str) -> int:
    """Return how many cells have an outcome, in any generation. Raises UnknownRun, ResultExpired."""
    found = connection.execute("SELECT count(*) FROM cell WHERE run = ?", (sqlite_columns.number_of(connection, run),))
    return int(found.fetchone()[0])


def _begin_anew(connection: sqlite3.Connection, run: str, now: float) -> None:
    """Empty the run if a sweep has dropped it."""
    found = connection.execute("SELECT id FROM run WHERE name = ? AND status = ?", (run, SWEPT)).fetchone()
    if found is not None:
        sqlite_sweep.clear(connection, found[0])
        connection.execute("UPDATE run SET status = ?, created_at = ? WHERE id = ?", (RUNNING, now, found[0]))


def _referred(connection: sqlite3.Connection, number: int, row: int) -> set[str]:
    found = connection.execute(_REFERENCES, (number, row))
    return {file for (payload,) in found for file in references.files_of(payload)}


def _status(text: str, run: str, row: int) -> CellStatus:
    try:
        return CellStatus(text)
    except ValueError:
        raise ResultCorrupt(f"row {row} of run {run!r}: a cell has the status {text!r}, which is none") from None


def _checked(data: bytes, checksum: int, run: str, row: int, what: str) -> bytes:
    if crc32(data) != checksum:
        raise ResultCorrupt(f"row {row} of run {run!r}: {what} does not match its checksum: restore it from a copy")
    return data


def _check_epoch(connection: sqlite3.Connection, opened: Opened) -> None:
    found = connection.execute("SELECT epoch FROM run WHERE id = ?", (opened.number,)).fetchone()
    current = None if found is None else found[0]
    if current != opened.info.epoch:
        raise rules.fenced_out(opened.info.run, opened.info.epoch, current)


def _column(opened: Opened, name: str) -> int:
    number = opened.columns.get(name)
    if number is None:
        raise rules.unknown_column(opened.info.run, name)
    return number


def _write_rows(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    run = opened.number
    fresh = ((run, r.row, r.row_id, r.digest, crc32(r.data), r.data) for r in batch.rows)
    if _ROWS.into(connection, fresh) == len(batch.rows):
        return
    for record in batch.rows:
        here = _row(connection, _ROW_AT, run, record.row)
        same_id = _row(connection, _ROW_CALLED, run, record.row_id)
        if refusal := rules.row_refusal(opened.info.run, record, here, same_id):
            raise refusal


def _row(connection: sqlite3.Connection, query: str, run: int, value: object) -> rules.Row | None:
    found = connection.execute(query, (run, value)).fetchone()
    return None if found is None else rules.Row(*found)


def _write_cells(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    run, epoch = opened.number, opened.info.epoch
    fresh = (
        (
            *(run, c.row, _column(opened, c.column), epoch, _WORDS[c.status]),
            *(storable(c.reason), storable(c.message), c.attempts, c.http_status),
            *(c.usage.input_tokens, c.usage.output_tokens, c.finished_at, crc32(c.payload or b""), c.payload),
        )
        for c in batch.cells
    )
    if _CELLS.into(connection, fresh) != len(batch.cells):
        _compare_cells(connection, opened, batch.cells)
    if _holds_any(connection, run):
        columns = opened.columns
        connection.executemany(_DELETE_HELD, [(run, c.row, columns[c.column]) for c in batch.cells])


def _reopen(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    """Take off what an earlier epoch ended without a value; its tokens stay on record, as those of an attempt 0."""
    for row, name in batch.reopened:
        key = (opened.number, row, opened.columns.get(name), opened.info.epoch)
        if connection.execute(_REMEMBER_ENDED, key).rowcount:
            connection.execute(_DELETE_ENDED, key)


def _compare_cells(connection: sqlite3.Connection, opened: Opened, cells: Iterable[CellRecord]) -> None:
    query = "SELECT status, payload FROM cell WHERE run = ? AND position = ? AND col = ?"
    for cell in cells:
        key = (opened.number, cell.row, opened.columns[cell.column])
        status, payload = connection.execute(query, key).fetchone()
        if refusal := rules.cell_refusal(opened.info.run, cell, status, payload):
            raise refusal
        if cell.payload is not None and cell.payload != payload:
            both = references.add_generation(payload, cell.payload)
            connection.execute(_REFER, (both, crc32(both), *key))


def _write_held(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    run, columns = opened.number, opened.columns
    gone = [(run, row, columns[column]) for row, column in batch.unheld if column in columns]
    connection.executemany(_DELETE_HELD, gone)
    held = [
        (run, h.row, _column(opened, h.column), storable(h.reason), h.not_before, h.attempts, h.history)
        for h in batch.held
    ]
    connection.executemany(_INSERT_HELD, held)


def _holds_any(connection: sqlite3.Connection, run: int) -> bool:
    """Whether a cell of the run is held: one question instead of a deletion for every cell."""
    return bool(connection.execute(_ANY_HELD, (run,)).fetchone()[0])


def _write_spent(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    run, epoch = opened.number, opened.info.epoch
    spent = [
        (
            *(run, s.row, _column(opened, s.column), epoch, s.attempt, storable(s.reason)),
            *(s.usage.input_tokens, s.usage.output_tokens),
        )
        for s in batch.spent
    ]
    connection.executemany(_INSERT_SPENT, spent)


def _write_learned(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    if batch.learned is not None:
        learn(connection, opened.number, opened.info.epoch, batch.learned)


def _read_learned(connection: sqlite3.Connection, number: int) -> bytes | None:
    return _intact(connection.execute(_SELECT_LEARNED, (number,)).fetchone())


def _intact(found: tuple[int, object] | None) -> bytes | None:
    """Return what was learned. Damaged, it is as good as never learned."""
    if found is None:
        return None
    checksum, data = found
    return data if isinstance(data, bytes) and crc32(data) == checksum else None


def _missing_row(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> int:
    """Return the first row that the batch speaks of and the run does not have."""
    spoken = [cell.row for cell in batch.cells] + [h.row for h in batch.held] + [s.row for s in batch.spent]
    return next(row for row in spoken if _row(connection, _ROW_AT, opened.number, row) is None)
