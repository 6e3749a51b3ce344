"""The columns of a run, each with its generations: a column that is renewed begins anew under another number.

The cells of the generation before stay as they are; nobody reads them, their tokens stay on record, and they come back
when the column is renewed with the fingerprint that they were made with. The numbers of later generations are negative,
so that they never meet those of columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from . import rules
from .sqlite_schema import GENERATIONS_SINCE, SWEPT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

__all__ = [
    "Column",
    "columns",
    "columns_as_if",
    "fingerprints_aside",
    "forget",
    "number_of",
    "open_columns",
    "spent_query",
]

_NOW: Final = """SELECT c.name, c.id, coalesce(g.id, c.id), coalesce(g.fingerprint, c.fingerprint)
    FROM run_column AS c LEFT JOIN (
        SELECT place, id, fingerprint, max(epoch) FROM generation WHERE run = :run GROUP BY place
    ) AS g ON g.place = c.id WHERE c.run = :run ORDER BY c.id"""
_FIRST: Final = "SELECT name, id, id, fingerprint FROM run_column WHERE run = :run ORDER BY id"
_MADE_WITH: Final = """SELECT id FROM generation WHERE run = :run AND place = :place AND fingerprint = :fingerprint
    UNION ALL SELECT id FROM run_column WHERE run = :run AND id = :place AND fingerprint = :fingerprint LIMIT 1"""
_ASIDE: Final = """SELECT c.name, g.id, g.fingerprint
    FROM generation AS g JOIN run_column AS c ON c.run = g.run AND c.id = g.place WHERE g.run = :run
    UNION SELECT name, id, fingerprint FROM run_column WHERE run = :run ORDER BY 2"""
_NEXT: Final = "SELECT min(0, coalesce(min(id), 0)) - 1 FROM generation WHERE run = ?"
_ADD: Final = "INSERT INTO run_column VALUES (?, ?, ?, ?)"
_BEGIN: Final = "INSERT OR REPLACE INTO generation VALUES (?, ?, ?, ?, ?)"
_RENAME_LATER: Final = "UPDATE generation SET fingerprint = :fingerprint WHERE run = :run AND id = :number"
_RENAME_FIRST: Final = "UPDATE run_column SET fingerprint = :fingerprint WHERE run = :run AND id = :number"
_LET_GO: Final = "DELETE FROM held WHERE run = ? AND col = ?"

_SPENT: Final = """SELECT name, sum(input_tokens), sum(output_tokens) FROM (
    SELECT col, input_tokens, output_tokens FROM cell WHERE run = :run
    UNION ALL SELECT col, input_tokens, output_tokens FROM spent WHERE run = :run
) JOIN ({names}) AS named ON named.id = col GROUP BY name"""
_NAMED_FIRST: Final = "SELECT id, name FROM run_column WHERE run = :run"
_NAMED_LATER: Final = """SELECT id, name FROM run_column WHERE run = :run UNION SELECT g.id, c.name
    FROM generation AS g JOIN run_column AS c ON c.run = g.run AND c.id = g.place WHERE g.run = :run"""


class Column(NamedTuple):
    """A column now: its place among the columns, the number of its cells, its fingerprint."""

    place: int
    number: int
    fingerprint: str


def columns(connection: sqlite3.Connection, run: int) -> dict[str, Column]:
    """Return the columns of the run by name, in their order."""
    query = _NOW if _has_generations(connection) else _FIRST
    return {name: Column(*rest) for name, *rest in connection.execute(query, {"run": run})}


def fingerprints_aside(
    connection: sqlite3.Connection, run: int, now: Mapping[str, Column]
) -> dict[str, tuple[str, ...]]:
    """Return the fingerprints of all generations of each column but the one that it has ``now``."""
    found: dict[str, tuple[str, ...]] = {}
    if _has_generations(connection):
        for name, number, fingerprint in connection.execute(_ASIDE, {"run": run}):
            if number != now[name].number:
                found[name] = (*found.get(name, ()), fingerprint)
    return found


def columns_as_if(connection: sqlite3.Connection, run: int, renewed: Mapping[str, str]) -> dict[str, Column]:
    """Return the columns as if some were renewed with these fingerprints; one that has no cells then is left out."""
    found = columns(connection, run)
    for name, fingerprint in renewed.items():
        if name in found and found[name].fingerprint != fingerprint:
            place = found.pop(name).place
            number = _made_with(connection, run, place, fingerprint)
            if number is not None:
                found[name] = Column(place, number, fingerprint)
    return found


def open_columns(
    connection: sqlite3.Connection,
    run: tuple[str, int],
    epoch: int,
    fingerprints: Mapping[str, str],
    *,
    renewed: Collection[str],
    kept: Collection[str],
) -> None:
    """Add those that the run, given by name and number, does not have yet, and renew or keep those that have changed.

    Raises FingerprintMismatch for one that has changed and is neither.
    """
    name, number = run
    stored = columns(connection, number)
    given = {column: mark for column, mark in fingerprints.items() if column not in renewed and column not in kept}
    rules.check_fingerprints(name, {column: one.fingerprint for column, one in stored.items()}, given)
    added = [column for column in fingerprints if column not in stored]
    connection.executemany(
        _ADD, [(number, place, column, fingerprints[column]) for place, column in enumerate(added, len(stored))]
    )
    for column, one in stored.items():
        mark = fingerprints.get(column, one.fingerprint)
        if mark == one.fingerprint:
            continue
        if column in renewed:
            _renew(connection, number, one, mark, epoch)
        else:
            # The first one stands in both tables once it has come back.
            renamed = {"run": number, "number": one.number, "fingerprint": mark}
            connection.execute(_RENAME_FIRST, renamed)
            connection.execute(_RENAME_LATER, renamed)


def forget(connection: sqlite3.Connection, run: str) -> None:
    """Delete the columns of the run."""
    number = "(SELECT id FROM run WHERE name = ?)"
    connection.execute(f"DELETE FROM run_column WHERE run = {number}", (run,))  # noqa: S608 - our own
    connection.execute(f"DELETE FROM generation WHERE run = {number}", (run,))  # noqa: S608 - our own


def spent_query(connection: sqlite3.Connection) -> str:
    """Return the query for the tokens on record by column, of all generations together. It takes the number of the run,
    as ``run``.
    """
    return _SPENT.format(names=_NAMED_LATER if _has_generations(connection) else _NAMED_FIRST)


def _renew(connection: sqlite3.Connection, run: int, column: Column, fingerprint: str, epoch: int) -> None:
    number = _made_with(connection, run, column.place, fingerprint)
    if number is None:
        (number,) = connection.execute(_NEXT, (run,)).fetchone()
    connection.execute(_BEGIN, (run, number, column.place, fingerprint, epoch))
    connection.execute(_LET_GO, (run, column.number))


def _made_with(connection: sqlite3.Connection, run: int, place: int, fingerprint: str) -> int | None:
    """The number under which a column had that fingerprint before; None if it never had."""
    if not _has_generations(connection):
        return None
    found = connection.execute(_MADE_WITH, {"run": run, "place": place, "fingerprint": fingerprint}).fetchone()
    return None if found is None else int(found[0])


def _has_generations(connection: sqlite3.Connection) -> bool:
    """Whether the file has the table: an older one that is only read has not been brought up to date."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(version >= GENERATIONS_SINCE)


def number_of(connection: sqlite3.Connection, run: str) -> int:
    """Return the number of a run. Raises UnknownRun, ResultExpired."""
    number, status = connection.execute("SELECT id, status FROM run WHERE name = ?", (run,)).fetchone() or (None, "")
    if number is None:
        raise rules.unknown_run(run)
    if status == SWEPT:
        raise rules.swept(run)
    return int(number)
