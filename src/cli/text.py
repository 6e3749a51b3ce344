"""What the commands show people: results of the library as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.spans import span
from ..reports.wording import moment, money, one_line, plain, rows_by_state, times

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..export import Export
    from ..storage.overview import ColumnOverview, RunOverview
    from ..storage.ports import RunInfo, Swept

__all__ = ["of_engine", "of_export", "of_overview", "of_runs", "of_status", "of_swept", "table"]

_SHOWN = 5


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """The rows as aligned lines, headings first; the first columns, ``left`` of them, are names, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def of_engine(found: Mapping[str, Any]) -> str:
    """What an engine says of itself."""
    lines = [f"process {found['pid']}"]
    for run in found["runs"]:
        how = " (stopping)" if run["stopping"] else " (draining)" if run["draining"] else ""
        lines.append(
            f"run {run['run']}{how}: {run['done']} rows done, {run['failed']} failed, {run['open_rows']} open after "
            f"{span(run['seconds'])}"
        )
    rows = [("scope", "in flight", "limit", "")]
    for scope in found["scopes"]:
        blocked = scope["blocked_s"]
        state = "paused" if scope["paused"] else f"closed for {span(blocked)}" if blocked else ""
        limit = "-" if scope["limit"] is None else f"{scope['limit']:.0f}"
        rows.append((scope["scope"], str(scope["in_flight"]), limit, state))
    return "\n".join([*lines, *_indented(table(rows))])


def of_export(export: Export) -> str:
    """What was written where."""
    line = f"{export.path}: {export.rows} rows"
    return (
        line
        if export.unfinished_path is None
        else f"{line}; {export.unfinished_path}: {export.unfinished} not finished"
    )


def of_swept(swept: Swept, *, dry_run: bool) -> str:
    """What a sweep removed, or would remove."""
    told = "would remove" if dry_run else "removed"
    runs = f"{len(swept.runs)} runs{': ' if swept.runs else ''}{', '.join(swept.runs)}"
    return f"{told} {runs}" if dry_run else f"{told} {runs}; {swept.leftovers} files that nothing refers to"


def of_runs(store: str, infos: Sequence[RunInfo]) -> str:
    """The runs of a store, a line each."""
    if not infos:
        return f"{store}: no runs"
    rows = [("run", "status", "rows", "epoch", "begun", "ended")]
    rows += [
        (info.run, info.status, str(info.rows), str(info.epoch), moment(info.created_at), moment(info.finished_at))
        for info in infos
    ]
    return "\n".join(table(rows, left=2))


def of_status(overview: RunOverview, costs: Mapping[str, float] | None = None) -> str:
    """A run and its columns; ``costs`` by column, in dollars, where they are known."""
    rows = [_HEADINGS, *map(_cells, overview.columns)]
    if costs:
        told = (_dollars(costs.get(column.column)) for column in overview.columns)
        rows = [(*row, cost) for row, cost in zip(rows, ("cost", *told), strict=True)]
    lines = [*_head(overview), *_indented(table(rows))]
    return "\n".join([*lines, f"  cost: {_dollars(sum(costs.values()))}"] if costs else lines)


def _dollars(amount: float | None) -> str:
    return "-" if amount is None else f"${money(amount)}"


def of_overview(overview: RunOverview, costs: Mapping[str, float] | None = None) -> str:
    """A run with its failures; ``costs`` as above."""
    lines = [of_status(overview, costs)]
    if overview.failure_counts:
        lines.append("  failures:")
        lines += [f"    {column}: {n} x {reason}" for (column, reason), n in overview.failure_counts.items()]
        for cell in overview.failures[:_SHOWN]:
            status = f" status {cell.http_status}" if cell.http_status is not None else ""
            lines.append(
                f"    row {plain(cell.row_id)}, {cell.column}: {cell.reason}{status}: {one_line(cell.message)}"
            )
        left = sum(overview.failure_counts.values()) - _SHOWN
        if left > 0:
            lines.append(f"    and {left} more: headgate export writes all of them")
    return "\n".join(lines)


_HEADINGS = ("column", "done", "failed", "skipped", "held", "open", "tokens in", "tokens out")


def _cells(column: ColumnOverview) -> tuple[str, ...]:
    counts = (column.done, column.failed, column.skipped, column.held, column.open)
    return (column.column, *map(str, (*counts, column.usage.input_tokens, column.usage.output_tokens)))


def _head(overview: RunOverview) -> Iterator[str]:
    info = overview.info
    yield f"run {info.run}: {info.status}"
    yield f"  {times(overview)}"
    yield f"  {rows_by_state(overview)}"
    if overview.next_at is not None:
        yield f"  held-back cells are tried again from {moment(overview.next_at)} on"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
