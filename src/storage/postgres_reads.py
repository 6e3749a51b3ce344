"""What is read from a PostgreSQL store: runs, rows with all that is committed about them, tokens.

Each answer is of one moment, whatever is committed or swept meanwhile; the next one is of a later moment.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from ..errors import ResultCorrupt
from ..values import Usage
from . import rules
from .ports import NOT_RENEWED, CellRecord, CellStatus, HeldRecord, RowRecord, RunInfo, StoredRow
from .postgres_merge import id_digest, packed, unpacked
from .sharing import SharedState

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from psycopg import Connection

    from .ports import Durability

__all__ = [
    "columns",
    "count_outcomes",
    "find",
    "fingerprints",
    "learned",
    "load",
    "read_info",
    "read_learned",
    "read_runs",
    "read_shared",
    "read_spent",
    "size",
]

_RUN: Final = "SELECT id, epoch, status, created_at, finished_at, swept FROM run WHERE name = %s"
_COLUMNS: Final = "SELECT name, number FROM run_column WHERE run = %s ORDER BY id"
_FINGERPRINTS: Final = "SELECT name, fingerprint FROM run_column WHERE run = %s ORDER BY id"
_ASIDE: Final = """SELECT c.name, array_agg(g.fingerprint)
    FROM generation AS g JOIN run_column AS c ON c.run = g.run AND c.id = g.place WHERE g.run = %s GROUP BY c.name"""
_RUNS: Final = "SELECT name FROM run WHERE NOT swept"
_PLACES: Final = "SELECT name, id, number, fingerprint FROM run_column WHERE run = %s ORDER BY id"
_MADE_WITH: Final = """SELECT number FROM generation
    WHERE run = %s AND place = %s AND fingerprint = %s ORDER BY epoch DESC LIMIT 1"""
_COUNT: Final = "SELECT count(*) FROM input_row WHERE run = %s"
_OUTCOMES: Final = "SELECT count(*) FROM cell WHERE run = %s"
_ROWS: Final = """SELECT position, row_id, digest, checksum, data FROM input_row
    WHERE run = %s AND position >= %s AND position < %s ORDER BY position LIMIT %s"""
_CELLS: Final = """SELECT position, col, status, reason, message, attempts, http_status, input_tokens,
    output_tokens, finished_at, checksum, payload FROM cell
    WHERE run = %s AND position >= %s AND position <= %s AND col = ANY (%s) ORDER BY position, col"""
_HELD: Final = """SELECT position, col, reason, not_before, attempts, history FROM held
    WHERE run = %s AND position >= %s AND position <= %s AND col = ANY (%s) ORDER BY position, col"""
_FIND: Final = "SELECT row_id, position FROM input_row WHERE run = %s AND id_digest = ANY (%s)"
# The run's own before any other's.
_LEARNED: Final = "SELECT checksum, data FROM learned ORDER BY run = %s DESC, place DESC LIMIT 1"
_OWN_LEARNED: Final = "SELECT checksum, data FROM learned WHERE run = %s"
_SPENT: Final = """SELECT name, sum(input_tokens)::bigint, sum(output_tokens)::bigint FROM (
    SELECT col, input_tokens, output_tokens FROM cell WHERE run = %(run)s
    UNION ALL SELECT col, input_tokens, output_tokens FROM spent WHERE run = %(run)s
) AS used JOIN (
    SELECT number, name FROM run_column WHERE run = %(run)s
    UNION ALL SELECT g.number, c.name
        FROM generation AS g JOIN run_column AS c ON c.run = g.run AND c.id = g.place WHERE g.run = %(run)s
) AS named ON named.number = col GROUP BY name"""

_SIZE: Final = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"""

_SHARED: Final = """SELECT count(*), count(*) FILTER (WHERE NOT open),
    count(*) FILTER (WHERE open AND ends_at > clock_timestamp()),
    extract(epoch FROM max(ends_at) FILTER (WHERE open AND ends_at <= clock_timestamp()))::double precision
    FROM row_group WHERE run = %(run)s
    HAVING EXISTS (SELECT FROM opening WHERE run = %(run)s AND shared AND NOT fenced)"""

_MOST: Final = 2**62


def read_info(connection: Connection[Any], run: str, durability: Durability) -> RunInfo:
    """Return the run as it is now. Raises UnknownRun, ResultExpired."""
    with _at_one_moment(connection):
        number, epoch, status, created_at, finished_at = _run(connection, run)
        known = fingerprints(connection, run)
        found = connection.execute(_COUNT, (number,)).fetchone()
        put_aside = connection.execute(_ASIDE, (number,)).fetchall()
    assert found is not None
    aside = {unpacked(name): tuple(map(unpacked, marks)) for name, marks in put_aside}
    return RunInfo(run, epoch, known, status, found[0], created_at, finished_at, durability, aside)


def fingerprints(connection: Connection[Any], run: str) -> dict[str, str]:
    """Return the fingerprints by column, in the order of columns. Raises UnknownRun, ResultExpired."""
    found = connection.execute(_FINGERPRINTS, (_run(connection, run)[0],))
    return {unpacked(name): unpacked(fingerprint) for name, fingerprint in found}


def columns(connection: Connection[Any], number: int) -> dict[str, int]:
    """Return the columns of a run, by name in their order, with the numbers of their cells now."""
    return {unpacked(name): number for name, number in connection.execute(_COLUMNS, (number,))}


def learned(connection: Connection[Any], number: int) -> bytes | None:
    """Return what was learned last, by this run or else by any. Damaged, it is as good as never learned."""
    found = connection.execute(_LEARNED, (number,)).fetchone()
    return _intact(found)


def find(connection: Connection[Any], run: str, row_ids: Sequence[str]) -> dict[str, int]:
    """Return the positions of the known ids. Raises UnknownRun, ResultExpired."""
    number = _run(connection, run)[0]
    found = connection.execute(_FIND, (number, [id_digest(row_id) for row_id in row_ids]))
    return {unpacked(row_id): position for row_id, position in found}


def load(
    connection: Connection[Any],
    run: str,
    first: int,
    last: int = sys.maxsize,
    most: int | None = None,
    renewed: Mapping[str, str] = NOT_RENEWED,
) -> list[StoredRow]:
    """Return ``most`` rows, or all, from ``first`` on, below ``last``, as if some columns had been ``renewed``.

    Raises ResultCorrupt and as ``find``.
    """
    with _at_one_moment(connection):
        return _load(connection, run, first, last, most, renewed)


def read_runs(connection: Connection[Any]) -> tuple[str, ...]:
    """Return the names of the runs that can be read, sorted."""
    return tuple(sorted(unpacked(name) for (name,) in connection.execute(_RUNS)))


def _load(
    connection: Connection[Any], run: str, first: int, last: int, most: int | None, renewed: Mapping[str, str]
) -> list[StoredRow]:
    number = _run(connection, run)[0]
    span = (number, min(first, _MOST), min(last, _MOST), most)
    records = [
        RowRecord(position, unpacked(row_id), digest, _checked(data, checksum, run, position, "the input row"))
        for position, row_id, digest, checksum, data in connection.execute(_ROWS, span, prepare=True, binary=True)
    ]
    if not records:
        return []
    names = _names(connection, number, renewed)
    within = (number, records[0].row, records[-1].row, list(names))
    cells = _cells(connection, run, within, names)
    held: dict[int, list[HeldRecord]] = {}
    for row, col, reason, *rest in connection.execute(_HELD, within, prepare=True, binary=True):
        held.setdefault(row, []).append(HeldRecord(row, names[col], unpacked(reason), *rest))
    if min(names, default=0) < 0:  # the numbers of later generations are not in the order of columns
        order = {name: place for place, name in enumerate(names.values())}
        for row in {*cells, *held}:
            cells.get(row, []).sort(key=lambda one: order[one.column])
            held.get(row, []).sort(key=lambda one: order[one.column])
    return [StoredRow(record, tuple(cells.get(record.row, ())), tuple(held.get(record.row, ()))) for record in records]


def read_spent(connection: Connection[Any], run: str) -> dict[str, Usage]:
    """Return the tokens on record per column. Raises UnknownRun, ResultExpired."""
    with _at_one_moment(connection):
        sums = connection.execute(_SPENT, {"run": _run(connection, run)[0]}).fetchall()
    return {unpacked(name): Usage(tokens_in, tokens_out) for name, tokens_in, tokens_out in sums}


def read_learned(connection: Connection[Any], run: str) -> bytes | None:
    """Return what the run itself learned last, if it is intact. Raises UnknownRun, ResultExpired."""
    with _at_one_moment(connection):
        found = connection.execute(_OWN_LEARNED, (_run(connection, run)[0],)).fetchone()
    return _intact(found)


def read_shared(connection: Connection[Any], run: str) -> SharedState | None:
    """Return how a run that engines share stands. Raises UnknownRun, ResultExpired."""
    with _at_one_moment(connection):
        found = connection.execute(_SHARED, {"run": _run(connection, run)[0]}).fetchone()
    return None if found is None else SharedState(*found)


def count_outcomes(connection: Connection[Any], run: str) -> int:
    """Return how many cells have an outcome, in any generation. Raises UnknownRun, ResultExpired."""
    found = connection.execute(_OUTCOMES, (_run(connection, run)[0],)).fetchone()
    assert found is not None
    return int(found[0])


def size(connection: Connection[Any]) -> int:
    """Return the bytes of all tables with their indexes."""
    found = connection.execute(_SIZE).fetchone()
    assert found is not None
    bytes_on_disk: int = found[0]
    return bytes_on_disk


def _names(connection: Connection[Any], run: int, renewed: Mapping[str, str]) -> dict[int, str]:
    """The columns by the numbers of the cells that are to be read, in their order; one that begins anew is left out."""
    if not renewed:
        return {number: name for name, number in columns(connection, run).items()}
    names: dict[int, str] = {}
    for packed_name, place, number, mark in connection.execute(_PLACES, (run,)).fetchall():
        name = unpacked(packed_name)
        fingerprint = renewed.get(name, unpacked(mark))
        if fingerprint == unpacked(mark):
            names[number] = name
        elif found := connection.execute(_MADE_WITH, (run, place, packed(fingerprint))).fetchone():
            names[found[0]] = name
    return names


@contextmanager
def _at_one_moment(connection: Connection[Any]) -> Generator[None]:
    """Let all queries see the same: a run that is swept between two of them would be half there."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _run(connection: Connection[Any], run: str) -> tuple[int, int, str, float, float | None]:
    found = connection.execute(_RUN, (packed(run),), prepare=True).fetchone()
    if found is None:
        raise rules.unknown_run(run)
    *known, swept = found
    if swept:
        raise rules.swept(run)
    number, epoch, status, created_at, finished_at = known
    return number, epoch, status, created_at, finished_at


def _cells(
    connection: Connection[Any], run: str, within: tuple[int, int, int, list[int]], names: Mapping[int, str]
) -> dict[int, list[CellRecord]]:
    cells: dict[int, list[CellRecord]] = {}
    found = connection.execute(_CELLS, within, prepare=True, binary=True)
    for row, col, status, reason, message, attempts, http, used_in, used_out, at, checksum, payload in found:
        kept = None if payload is None else _checked(payload, checksum, run, row, f"column {names[col]!r}")
        usage = Usage(used_in, used_out)
        record = CellRecord(
            row, names[col], CellStatus(status), kept, unpacked(reason), unpacked(message), attempts, http, usage, at
        )
        cells.setdefault(row, []).append(record)
    return cells


def _checked(data: bytes, checksum: int, run: str, row: int, what: str) -> bytes:
    if crc32(data) != checksum:
        raise ResultCorrupt(f"row {row} of run {run!r}: {what} does not match its checksum: restore it from a copy")
    return data


def _intact(found: tuple[int, bytes] | None) -> bytes | None:
    return found[1] if found is not None and crc32(found[1]) == found[0] else None
