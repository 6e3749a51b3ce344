"""Whether a report is true: each accepted row has exactly one outcome, and the report counts what the store holds."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from ..errors import LedgerMismatch, ResultExpired
from ..storage.ports import CellStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..engine.report import RunReport
    from ..export import RunResults
    from ..storage.ports import StoredRow

__all__ = ["assert_ledger"]

NAMED_ROWS_MAX: Final = 10
OUTCOMES: Final = ("done", "failed", "held", "skipped")


def assert_ledger(report: RunReport) -> None:
    """Raise AssertionError, naming the rows, unless every row of ``report`` has exactly one outcome.

    ``accepted == done + failed + held + skipped`` has to hold for rows and for the cells of each column. Then the store
    is read, row by row: no row may be there twice, no cell may have two outcomes, and as many must be done, failed,
    held and skipped as the report says. A row that a stopped run had not written yet counts as held. Of a run without a
    store whose rows were handed out by ``run.rows()`` only the counts can be looked at. It blocks. For runs of one
    engine, not for :meth:`headgate.Engine.share`.

    >>> report = headgate.run(pipeline, rows)  # doctest: +SKIP
    >>> assert_ledger(report)  # doctest: +SKIP
    """
    try:
        report.check()
    except LedgerMismatch as error:
        raise AssertionError(str(error)) from error
    results = report._results  # pyright: ignore[reportPrivateUsage]
    if results is None:
        return
    try:
        rows = {name: list[str]() for name in OUTCOMES}
        faults = list(islice(_faults(results, report.accepted, rows), NAMED_ROWS_MAX))
    except ResultExpired:
        return
    rows["held"].extend(f"{missing} not stored" for missing in range(report.accepted - sum(map(len, rows.values()))))
    faults.extend(_differences(report, rows))
    assert not faults, f"run {report.run!r}: " + "; ".join(faults)


def _faults(results: RunResults, accepted: int, rows: dict[str, list[str]]) -> Iterator[str]:
    """What is wrong with single rows; sorts all others into ``rows`` by outcome, each as a few words."""
    positions: Counter[int] = Counter()
    for stored in results.store.read_rows(results.run):
        position = stored.record.row
        if position >= accepted:  # an earlier life of the run had taken more
            continue
        positions[position] += 1
        if positions[position] > 1:
            yield f"{_name(stored)} is stored {positions[position]} times"
            continue
        if twice := _outcomes_of_cells(stored).most_common(1):
            (column, times), *_ = twice
            if times > 1:
                yield f"{_name(stored)}: column {column!r} has {times} outcomes"
        outcome, why = _outcome(stored, results.columns)
        rows[outcome].append(f"{_name(stored)}{why}")


def _outcomes_of_cells(stored: StoredRow) -> Counter[str]:
    return Counter([*(cell.column for cell in stored.cells), *(held.column for held in stored.held)])


def _outcome(stored: StoredRow, columns: Iterable[str]) -> tuple[str, str]:
    """The outcome of a row, and what a reader wants to know of it."""
    cells = {cell.column: cell for cell in stored.cells}
    if open_columns := [column for column in columns if column not in cells]:
        reasons = {held.column: f" ({held.reason})" for held in stored.held}
        return "held", " waits for " + ", ".join(f"{one!r}{reasons.get(one, '')}" for one in open_columns)
    of_run = [cells[column] for column in columns]
    for cell in of_run:
        if cell.status is CellStatus.FAILED:
            return "failed", f" failed in {cell.column!r} ({cell.reason})"
    return ("done" if any(cell.status is CellStatus.DONE for cell in of_run) else "skipped"), ""


def _differences(report: RunReport, rows: dict[str, list[str]]) -> Iterator[str]:
    """How the counts of the report differ from those of the store, with the rows that the store has too many of."""
    said = {"done": report.done, "failed": report.failed, "held": report.held, "skipped": report.skipped}
    for outcome, found in rows.items():
        if len(found) == said[outcome]:
            continue
        named = ": " + ", ".join(found[:NAMED_ROWS_MAX]) if len(found) > said[outcome] else ""
        more = ", ..." if named and len(found) > NAMED_ROWS_MAX else ""
        yield f"the report says {said[outcome]} {outcome}, the store holds {len(found)}{named}{more}"


def _name(stored: StoredRow) -> str:
    record = stored.record
    return f"row {record.row}" if record.row_id in {"", str(record.row)} else f"row {record.row} ({record.row_id})"
