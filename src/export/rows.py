"""Stored rows as what is exported: whole rows as dicts, all others with what keeps them from being whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..storage.codec import decode
from ..storage.ports import CellStatus, RunStore, StoredRow

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_results", "unfinished", "whole"]


def read_results(store: RunStore, run: str, columns: tuple[str, ...]) -> Iterator[dict[str, object]]:
    """The rows in which each of ``columns`` is done or skipped: input fields first, then columns (None: skipped)."""
    for stored in store.read_rows(run):
        row = whole(stored, columns)
        if row is not None:
            yield row


def whole(stored: StoredRow, columns: tuple[str, ...]) -> dict[str, object] | None:
    """The row as :func:`read_results` gives it; None if it is not whole."""
    cells = {cell.column: cell for cell in stored.cells}
    row: dict[str, object] = dict(decode(stored.record.data))
    for column in columns:
        cell = cells.get(column)
        if cell is None or cell.status is CellStatus.FAILED:
            return None
        row[column] = None if cell.payload is None else decode(cell.payload)
    return row


def unfinished(stored: StoredRow, columns: tuple[str, ...], *, ended: bool) -> dict[str, object]:
    """A row that is not whole: what it is, what is done of it, and why the rest is not.

    ``status`` is ``failed`` if a cell of it failed, else ``held`` if one is held back or the run has ``ended``, which
    left it for a later one, else ``pending``.
    ``not_before`` is wall-clock time in seconds.
    """
    wanted = frozenset(columns)
    problems: list[dict[str, object]] = []
    values: dict[str, object] = {}
    for cell in stored.cells:
        if cell.column not in wanted:
            continue
        if cell.status is CellStatus.FAILED:
            problems.append(
                {
                    "column": cell.column,
                    "status": "failed",
                    "reason": cell.reason,
                    "message": cell.message,
                    "attempts": cell.attempts,
                    "http_status": cell.http_status,
                }
            )
        else:
            values[cell.column] = None if cell.payload is None else decode(cell.payload)
    failed = bool(problems)
    held = [record for record in stored.held if record.column in wanted]
    problems.extend(
        {
            "column": record.column,
            "status": "held",
            "reason": record.reason,
            "attempts": record.attempts,
            "not_before": record.not_before,
        }
        for record in held
    )
    return {
        "row": stored.record.row,
        "row_id": stored.record.row_id,
        "status": "failed" if failed else "held" if held or ended else "pending",
        "problems": problems,
        "input": decode(stored.record.data),
        "values": values,
    }
