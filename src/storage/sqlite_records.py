"""What the SQLite store does inside a transaction that writes: open a run, write a batch, say how a run ended.

Plain functions on a connection; who calls them begins and ends the transaction, and rolls it back when they
raise. Refusals are worded in :mod:`headgate.storage.rules`. The usual batch is all new, so it is inserted
with statements that ignore what exists; only if something was ignored is each record compared with the stored
one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast
from zlib import crc32

from ..values import writable
from . import references, rules, sqlite_columns, sqlite_reads, sqlite_sweep
from .ports import RUNNING, CellRecord, CellStatus, RunInfo
from .sqlite_checksums import cell_intact, of_cell, of_row
from .sqlite_insert import Insert
from .sqlite_schema import SWEPT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from .ports import Batch, Durability
    from .sqlite_checksums import CellHead

__all__ = [
    "Opened",
    "finish",
    "learn",
    "open_run",
    "opened",
    "write_batch",
]

_ROWS: Final = Insert("input_row", 6)
_CELLS: Final = Insert("cell", 14)
_INSERT_SPENT: Final = "INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
# A cell that is terminal is not held any more, however late somebody says so.
_INSERT_HELD: Final = """INSERT OR REPLACE INTO held SELECT ?, ?, ?, ?, ?, ?, ?
    WHERE NOT EXISTS (SELECT 1 FROM cell WHERE run = ? AND position = ? AND col = ?)"""
_REPLACE_LEARNED: Final = "INSERT OR REPLACE INTO learned (run, epoch, checksum, data) VALUES (?, ?, ?, ?)"
_REFER: Final = "UPDATE cell SET payload = ?, checksum = ? WHERE run = ? AND position = ? AND col = ?"
_CELL_AT: Final = """SELECT run, position, col, epoch, status, reason, message, attempts, http_status, input_tokens,
    output_tokens, finished_at, checksum, payload FROM cell WHERE run = ? AND position = ? AND col = ?"""
_DELETE_HELD: Final = "DELETE FROM held WHERE run = ? AND position = ? AND col = ?"
_ANY_HELD: Final = "SELECT EXISTS (SELECT 1 FROM held WHERE run = ?)"

_ENDED: Final = "FROM cell WHERE run = ? AND position = ? AND col = ? AND epoch < ? AND status != 'done'"
_REMEMBER_ENDED: Final = f"""INSERT INTO spent
    SELECT run, position, col, epoch, 0, reason, input_tokens, output_tokens {_ENDED}"""
_DELETE_ENDED: Final = f"DELETE {_ENDED}"

_ROW_AT: Final = "SELECT position, row_id, digest FROM input_row WHERE run = ? AND position = ?"
_ROW_CALLED: Final = "SELECT position, row_id, digest FROM input_row WHERE run = ? AND row_id = ?"
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
    return Opened(
        number, columns, sqlite_reads.read_info(connection, run, durability), sqlite_reads.learned(connection, number)
    )


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


def _begin_anew(connection: sqlite3.Connection, run: str, now: float) -> None:
    """Empty the run if a sweep has dropped it."""
    found = connection.execute("SELECT id FROM run WHERE name = ? AND status = ?", (run, SWEPT)).fetchone()
    if found is not None:
        sqlite_sweep.clear(connection, found[0])
        connection.execute("UPDATE run SET status = ?, created_at = ? WHERE id = ?", (RUNNING, now, found[0]))


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
    fresh = (
        (run, r.row, r.row_id, r.digest, of_row(run, r.row, r.row_id, r.digest, r.data), r.data) for r in batch.rows
    )
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

    def fresh() -> Iterator[tuple[object, ...]]:
        for c in batch.cells:
            usage, payload = c.usage, c.payload
            head = (
                *(run, c.row, _column(opened, c.column), epoch, _WORDS[c.status]),
                *(writable(c.reason), writable(c.message), c.attempts, c.http_status),
                *(usage.input_tokens, usage.output_tokens, c.finished_at),
            )
            yield (*head, of_cell(head, payload), payload)

    if _CELLS.into(connection, fresh()) != len(batch.cells):
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
    for cell in cells:
        key = (opened.number, cell.row, opened.columns[cell.column])
        *columns, checksum, payload = connection.execute(_CELL_AT, key).fetchone()
        head = cast("CellHead", tuple(columns))
        if refusal := rules.cell_refusal(opened.info.run, cell, head[4], payload):
            raise refusal
        # A new checksum would hide that it is damaged.
        if cell.payload is not None and cell.payload != payload and cell_intact(checksum, head, payload):
            both = references.add_generation(payload, cell.payload)
            connection.execute(_REFER, (both, of_cell(head, both), *key))


def _write_held(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    run, columns = opened.number, opened.columns
    gone = [(run, row, columns[column]) for row, column in batch.unheld if column in columns]
    connection.executemany(_DELETE_HELD, gone)
    held = [
        (*key, writable(h.reason), h.not_before, h.attempts, h.history, *key)
        for h in batch.held
        for key in [(run, h.row, _column(opened, h.column))]
    ]
    connection.executemany(_INSERT_HELD, held)


def _holds_any(connection: sqlite3.Connection, run: int) -> bool:
    """Whether a cell of the run is held: one question instead of a deletion for every cell."""
    return bool(connection.execute(_ANY_HELD, (run,)).fetchone()[0])


def _write_spent(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    run, epoch = opened.number, opened.info.epoch
    spent = [
        (
            *(run, s.row, _column(opened, s.column), epoch, s.attempt, writable(s.reason)),
            *(s.usage.input_tokens, s.usage.output_tokens),
        )
        for s in batch.spent
    ]
    connection.executemany(_INSERT_SPENT, spent)


def _write_learned(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> None:
    if batch.learned is not None:
        learn(connection, opened.number, opened.info.epoch, batch.learned)


def _missing_row(connection: sqlite3.Connection, opened: Opened, batch: Batch) -> int:
    """Return the first row that the batch speaks of and the run does not have."""
    spoken = [cell.row for cell in batch.cells] + [h.row for h in batch.held] + [s.row for s in batch.spent]
    return next(row for row in spoken if _row(connection, _ROW_AT, opened.number, row) is None)
