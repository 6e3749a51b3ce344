"""What the live view shows: lines of text, fitted to the width and height that there is.

Pure, and aligned by hand: a table of rich's takes ten times as long to draw, and this is drawn twice a second for as
long as a run takes.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

from ..engine.spans import span
from ..reports.wording import money

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..engine.report import ColumnReport
    from ..engine.statistics import ResourceStatistics, RunStatistics
    from .rates import Eta, Rates

__all__ = ["Line", "progress_line", "view_lines"]

WIDE: Final = 105
"""Columns of the screen from which on models also show what is ready, requests so far and tokens."""

NARROW: Final = 80
"""Columns below which models show what is in flight as a part of the limit, and not what is held: columns do."""

FRAME_LINES: Final = 8
"""Lines that are neither a model nor a column."""

PACE_LEAST: Final = 17
"""Characters for what sets the pace, so that not all else moves when that changes."""

NAME_LEAST: Final = 8
"""Characters for a name, however narrow the screen is."""

BAR_MOST: Final = 50

OUT: Final = frozenset({"paused", "blocked", "parked", "given up"})
"""What is said of resources that do nothing at all."""


class Line(NamedTuple):
    """A line, and what it is to look like: a style of rich's, or nothing."""

    text: str
    style: str = ""


def progress_line(now: RunStatistics, total: int | None = None, rates: Rates | None = None) -> str:
    """One line about a run, for logs."""
    flight = ", ".join(f"{r.resource} {r.in_flight}/{_limit(r.limit)}" for r in now.resources)
    told = f"{_head(now, total)} after {span(now.seconds)}{_end(now, rates)}{_spent(now, ', ')}"
    return f"{told}; in flight: {flight}" if flight and not now.over else told


def view_lines(now: RunStatistics, total: int | None, rates: Rates, *, width: int, height: int) -> list[Line]:
    """The view of one run: no line is wider than ``width``, and there are at most ``height`` of them, or 12."""
    room = max(4, height - FRAME_LINES)
    resources = _most(len(now.resources), max(room // 2, room - len(now.columns)))
    columns = _most(len(now.columns), room - resources)
    spent = _spent(now)
    lines = [
        Line(_head(now, total), "bold"),
        Line(_bar(now, total, rates, width)),
        *([Line(spent)] if spent else []),
        *([Line("")] if now.resources else []),
        *_resources(now.resources[:resources], rates, width),
        *_more(len(now.resources) - resources, "models"),
        Line(""),
        *_columns(now.columns[:columns], now, width),
        *_more(len(now.columns) - columns, "columns"),
    ]
    return [Line(_cut(text, width), style) for text, style in lines]


def _head(now: RunStatistics, total: int | None) -> str:
    of = f" of {total}" if total is not None else ""
    skipped = f", {now.skipped} skipped" if now.skipped else ""
    cells = sum(column.held for column in now.columns)
    held = f"{now.held} held" if now.over else f"{cells} {'cell' if cells == 1 else 'cells'} held back"
    return f"{now.run}: {now.done}{of} rows done, {now.failed} failed{skipped}, {held}"


def _bar(now: RunStatistics, total: int | None, rates: Rates, width: int) -> str:
    told = f"{span(now.seconds)}{_end(now, rates)}"
    if not total:
        return told
    share = min(1.0, sum(map(_ended, now.columns)) / (total * max(1, len(now.columns))))
    told = f" {int(100 * share):3d} %  {told}"
    places = max(5, min(BAR_MOST, width - len(told)))
    full = int(share * places)
    return "━" * full + "╌" * (places - full) + told


def _end(now: RunStatistics, rates: Rates | None) -> str:
    """How it ends, or when."""
    if now.ending:
        return f", {now.ending.replace('_', ' ')}"
    if any(one.pace == "paused" for one in now.resources):
        return ", no end while paused"
    eta = None if rates is None else rates.eta()
    if eta is None or not eta.likely_s:
        return ""
    if isfinite(eta.likely_s):
        return f", {span(eta.likely_s)} to go{_between(eta)}"
    return f", {span(eta.low_s)} or more to go" if isfinite(eta.low_s) else ", nothing gets done"


def _between(eta: Eta) -> str:
    low, high = span(eta.low_s), span(eta.high_s)
    if not isfinite(eta.high_s):
        return f" (from {low} on)"
    return "" if low == high else f" ({low} to {high})"


def _spent(now: RunStatistics, before: str = "") -> str:
    """What was spent, beside its cap."""
    if now.spent is None:
        return ""
    most, tokens = (None, None) if now.budget is None else (now.budget.money, now.budget.tokens)
    of = "" if most is None else f" of ${money(most)}"
    told = [] if now.spent.money is None else [f"${money(now.spent.money)}{of}"]
    told.append(f"{now.spent.tokens}{'' if tokens is None else f' of {tokens}'} tokens")
    return f"{before}spent {', '.join(told)}"


def _resources(resources: Sequence[ResourceStatistics], rates: Rates, width: int) -> Iterator[Line]:
    if not resources:
        return
    rows = [["model", "in flight", *([] if width < NARROW else ["limit"]), "req/s", "429s"]]
    rows[0] += [] if width < NARROW else ["held"]
    rows[0] += [] if width < WIDE else ["ready", "requests", "tokens/min"]
    for one in resources:
        speed, limit = rates.of(one.resource), _limit(one.limit)
        flight = [f"{one.in_flight}/{limit}"] if width < NARROW else [str(one.in_flight), limit]
        row = [one.resource, *flight, _rate(speed.requests_per_s), str(one.rate_limited)]
        row += [str(one.held), str(one.ready), str(one.requests), f"{speed.tokens_per_minute:.0f}"]
        rows.append(row[: len(rows[0])])
    paces = ["pace", *map(_pace, resources)]
    styles = ["dim", *("yellow" if one.blocked_s or one.pace in OUT else "" for one in resources)]
    aligned = _aligned(rows, width - max(PACE_LEAST, *map(len, paces)) - 2)
    yield from (Line(f"{row}  {pace}", style) for row, pace, style in zip(aligned, paces, styles, strict=True))


def _columns(columns: Sequence[ColumnReport], now: RunStatistics, width: int) -> Iterator[Line]:
    rows = [["column", "done", "failed", "held", "skipped", "open"]]
    for one in columns:
        counts = (one.done, one.failed, one.held, one.skipped, max(0, now.accepted - one.total))
        rows.append([one.column, *map(str, counts)])
    styles = ["dim", *("red" if one.failed else "yellow" if one.column in now.given_up else "" for one in columns)]
    yield from (Line(row, style) for row, style in zip(_aligned(rows, width), styles, strict=True))


def _aligned(rows: list[list[str]], width: int) -> list[str]:
    """The rows as lines of at most ``width``: names to the left, cut if need be, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = max(NAME_LEAST, min(widths[0], width - sum(widths[1:]) - 2 * len(widths[1:])))
    return [
        "  ".join((_tail(row[0], widths[0]).ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))) for row in rows
    ]


def _more(count: int, what: str) -> Iterator[Line]:
    if count > 0:
        yield Line(f"and {count} more {what}", "dim")


def _most(count: int, room: int) -> int:
    """How many of ``count`` are shown; who is left out takes a line too."""
    return count if count <= room else max(1, room - 1)


def _ended(column: ColumnReport) -> int:
    return column.done + column.failed + column.skipped


def _pace(one: ResourceStatistics) -> str:
    return f"{one.pace} {span(one.blocked_s)}" if 0 < one.blocked_s < inf and one.pace not in OUT else one.pace


def _rate(per_s: float) -> str:
    return f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.1f}"


def _limit(limit: float) -> str:
    return "-" if limit == inf else f"{limit:.0f}"


def _tail(name: str, most: int) -> str:
    """The end of a name says more than its beginning: which model it is."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
