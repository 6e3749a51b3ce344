"""What the PostgreSQL store does with a connection: open a run, commit, finish, and say why something was refused.

Each call is one statement, see :mod:`headgate.storage.postgres_functions`; all may be repeated. A refusal changes
nothing, and its reasons are facts that stay: another epoch, another row, another outcome. So they are looked up
afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, LiteralString

from ..errors import FingerprintMismatch, StoreError
from . import postgres_reads, rules
from .ports import CellStatus
from .postgres_merge import Merged, id_digest, packed, unknown_columns, unpacked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from psycopg import Connection

    from .ports import Batch, CellRecord, Durability, RowRecord, RunInfo

__all__ = [
    "Opened",
    "Refused",
    "commit",
    "drop_runs",
    "empty_trash",
    "finish",
    "lost_groups",
    "open_run",
    "why_fenced",
    "why_not_opened",
    "why_refused",
]

_OPEN: Final = """SELECT o_run, o_epoch, o_group_rows
    FROM open_run(%s, %s::text[], %s::text[], %s::text[], %s::text[], %s, %s::integer)"""
_COMMIT: Final = """SELECT commit_batches(%s::bigint, %s::integer, %s::bigint,
    %b::bigint[], %b::bytea[], %b::text[], %b::bytea[], %b::bigint[], %b::bytea[],
    %b::bigint[], %b::integer[],
    %b::bigint[], %b::integer[], %b::text[], %b::text[], %b::text[], %b::integer[],
    %b::integer[], %b::bigint[], %b::bigint[], %b::double precision[], %b::bigint[], %b::bytea[],
    %b::bigint[], %b::integer[],
    %b::bigint[], %b::integer[], %b::text[], %b::double precision[], %b::integer[], %b::bytea[],
    %b::bigint[], %b::integer[], %b::integer[], %b::text[], %b::bigint[], %b::bigint[],
    %s::bigint, %b::bytea, %b::bigint[], %b::bigint[])"""
_FINISH: Final = "SELECT finish_run(%s::bigint, %s::integer, %s::bigint, %s, %s::double precision)"
_DROP: Final = "SELECT drop_run(%s::double precision, %s::text[], %s::text[])"
_EMPTY: Final = "SELECT empty_trash(%s::integer)"
_TRASH_AT_ONCE: Final = 5_000

_TOKENS: Final = "SELECT number, token FROM row_group WHERE run = %s AND number = ANY (%s)"
_OTHERS: Final = """SELECT columns FROM opening JOIN run ON run.id = opening.run
    WHERE name = %s AND shared AND NOT fenced AND columns <> %s::text[] LIMIT 1"""
_EPOCH: Final = """SELECT run.epoch, opening.fenced FROM run
    LEFT JOIN opening ON opening.run = run.id AND opening.run = %s AND opening.epoch = %s
    WHERE name = %s"""
_ROWS_LIKE: Final = """SELECT position, row_id, digest FROM input_row
    WHERE run = %s AND (position = ANY (%s) OR id_digest = ANY (%s))"""
_CELLS_AT: Final = """SELECT position, col, epoch, status, payload FROM cell
    JOIN unnest(%s::bigint[], %s::integer[]) AS g (at, which) ON position = at AND col = which WHERE run = %s"""


class Refused(Exception):
    """The database was not given what it may take, and has changed nothing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One opening of one run: who may write, under which numbers, and what was learned until then."""

    number: int
    columns: Mapping[str, int]
    info: RunInfo
    learned: bytes | None
    group_rows: int = 0
    """Rows to a group of a run that is shared; 0 for one that is not."""


def open_run(
    connection: Connection[Any],
    run: str,
    fingerprints: Mapping[str, str],
    now: float,
    durability: Durability,
    group_rows: int | None = None,
    *,
    renewed: Collection[str] = (),
    kept: Collection[str] = (),
) -> Opened:
    """Create the run, or let its next epoch begin; share it if ``group_rows`` are given.

    Raises Refused if a column has changed that is neither ``renewed`` nor ``kept``.
    """
    columns = ([*map(packed, names)] for names in (fingerprints, fingerprints.values(), renewed, kept))
    found = connection.execute(_OPEN, (packed(run), *columns, now, group_rows)).fetchone()
    assert found is not None
    number, epoch, size = found
    if number is None:
        raise Refused
    info = replace(postgres_reads.read_info(connection, run, durability), epoch=epoch)
    numbers = postgres_reads.columns(connection, number)
    return Opened(number, numbers, info, postgres_reads.learned(connection, number), size if group_rows else 0)


def why_not_opened(
    connection: Connection[Any], run: str, fingerprints: Mapping[str, str], names: Collection[str]
) -> StoreError:
    """Return why a run was not opened for the columns ``names``, of which those of ``fingerprints`` may not change."""
    stored = postgres_reads.fingerprints(connection, run)
    try:
        rules.check_fingerprints(run, stored, fingerprints)
    except FingerprintMismatch as error:
        return error
    own = sorted(map(packed, names))
    others = connection.execute(_OTHERS, (packed(run), own)).fetchone()
    if others is None:
        return _no_reason(run)
    theirs = sorted(map(unpacked, others[0]))
    return FingerprintMismatch(
        f"run {run!r} is shared by engines with the columns {theirs}, not {sorted(names)}: give all of them the same "
        "pipeline, or open the run alone first, which ends their part in it"
    )


def commit(
    connection: Connection[Any], opened: Opened, sequence: int, merged: Merged, claims: Iterable[tuple[int, int]] = ()
) -> None:
    """Write batches, all or nothing, and once only for each ``sequence``, which grow. Raises Refused.

    ``claims`` are the groups that they touch, with the tokens by which these are held.
    """
    groups = sorted(claims)
    held = ([group for group, _ in groups], [token for _, token in groups])
    parameters = (opened.number, opened.info.epoch, sequence, *merged.parameters(), *held)
    if connection.execute(_COMMIT, parameters, prepare=True).fetchone() != (True,):
        raise Refused


def finish(connection: Connection[Any], opened: Opened, sequence: int, status: str, now: float) -> None:
    """Record how the run ended. Raises Refused if it was opened again."""
    found = connection.execute(_FINISH, (opened.number, opened.info.epoch, sequence, status, now)).fetchone()
    if found != (True,):
        raise Refused


def why_refused(
    connection: Connection[Any], opened: Opened, batch: Batch, claims: Iterable[tuple[int, int]] = ()
) -> StoreError:
    """Return what is wrong with a batch, or an opening, that was refused."""
    run = opened.info.run
    if fenced := why_fenced(connection, opened):
        return fenced
    if lost := lost_groups(connection, opened, claims):
        return rules.claim_lost(run, lost)
    if (name := unknown_columns(batch, opened.columns)) is not None:
        return rules.unknown_column(run, name)
    stored = _rows_like(connection, opened.number, batch.rows)
    found = _row_refusal(run, batch.rows, stored)
    found = found or _missing_row(connection, opened, batch)
    found = found or _cell_refusal(opened, batch.cells, _cells_at(connection, opened, batch))
    return found or _no_reason(run)


def drop_runs(connection: Connection[Any], before: float, statuses: Iterable[str], spare: Iterable[str]) -> list[str]:
    """Drop the runs that ended until ``before`` (wall-clock seconds), and return their names. Their records become
    trash.
    """
    wanted, spared = list(statuses), [packed(run) for run in spare]
    dropped: list[str] = []
    while (found := connection.execute(_DROP, (before, wanted, spared)).fetchone()) and found[0] is not None:
        dropped.append(unpacked(found[0]))
    return dropped


def empty_trash(connection: Connection[Any]) -> bool:
    """Delete some records of dropped runs; return whether there may be more."""
    return connection.execute(_EMPTY, (_TRASH_AT_ONCE,)).fetchone() == (True,)


def lost_groups(connection: Connection[Any], opened: Opened, claims: Iterable[tuple[int, int]]) -> list[int]:
    """Return the groups among ``claims`` that are held by these tokens no more."""
    wanted = dict(claims)
    known = dict(connection.execute(_TOKENS, (opened.number, list(wanted))).fetchall()) if wanted else {}
    return [group for group, token in wanted.items() if known.get(group) != token]


def why_fenced(connection: Connection[Any], opened: Opened) -> StoreError | None:
    """Return what is wrong with an opening that may not write any more; None if it may."""
    key = (opened.number, opened.info.epoch, packed(opened.info.run))
    found = connection.execute(_EPOCH, key).fetchone()
    if found is not None and found[1] is False:
        return None
    return rules.fenced_out(opened.info.run, opened.info.epoch, None if found is None else found[0])


def _rows_like(connection: Connection[Any], number: int, rows: Sequence[RowRecord]) -> list[rules.Row]:
    """Return the stored rows at the positions, or with the ids, of the given ones."""
    positions = [record.row for record in rows]
    digests = [id_digest(record.row_id) for record in rows]
    found = connection.execute(_ROWS_LIKE, (number, positions, digests))
    return [rules.Row(position, unpacked(row_id), digest) for position, row_id, digest in found]


def _row_refusal(run: str, rows: Sequence[RowRecord], stored: Sequence[rules.Row]) -> StoreError | None:
    at = {row.position: row for row in stored}
    called = {row.row_id: row for row in stored}
    for record in rows:
        if refusal := rules.row_refusal(run, record, at.get(record.row), called.get(record.row_id)):
            return refusal
        row = rules.Row(record.row, record.row_id, record.digest)
        at[record.row] = called[record.row_id] = row
    return None


def _missing_row(connection: Connection[Any], opened: Opened, batch: Batch) -> StoreError | None:
    given = {record.row for record in batch.rows}
    spoken = [record.row for records in (batch.cells, batch.held, batch.spent) for record in records]
    query: LiteralString = "SELECT position FROM input_row WHERE run = %s AND position = ANY (%s)"
    known = {position for (position,) in connection.execute(query, (opened.number, spoken))} | given
    missing = next((row for row in spoken if row not in known), None)
    return None if missing is None else rules.unknown_row(opened.info.run, missing)


def _cell_refusal(
    opened: Opened, cells: Sequence[CellRecord], stored: Mapping[tuple[int, int], tuple[str, bytes | None]]
) -> StoreError | None:
    known = dict(stored)
    for cell in cells:
        first = known.setdefault((cell.row, opened.columns[cell.column]), (cell.status, cell.payload))
        if refusal := rules.cell_refusal(opened.info.run, cell, *first):
            return refusal
    return None


def _cells_at(
    connection: Connection[Any], opened: Opened, batch: Batch
) -> dict[tuple[int, int], tuple[str, bytes | None]]:
    """Return the stored outcomes of the cells of a batch, but for those that it reopens."""
    cells, columns = batch.cells, opened.columns
    keys = ([cell.row for cell in cells], [columns[cell.column] for cell in cells], opened.number)
    reopened = {(row, columns.get(column)) for row, column in batch.reopened}
    return {
        (row, col): (status, payload)
        for row, col, epoch, status, payload in connection.execute(_CELLS_AT, keys)
        if status == CellStatus.DONE or epoch >= opened.info.epoch or (row, col) not in reopened
    }


def _no_reason(run: str) -> StoreError:
    return StoreError(f"run {run!r}: the database refused this for no reason that can be found: please report it")
