"""A report as Markdown: the same content in tables. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import tables
from .glance import glance
from .wording import count, duration, moment, one_line, rows_by_state, standing, times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .reading import StoredReport
    from .tables import Table

__all__ = ["as_markdown"]

LISTED = 100
"""Failures in the Markdown: it is read from top to bottom."""

_MARKUP = re.compile(r"[\\`*_\[\]|~]")


def as_markdown(report: StoredReport) -> str:
    """The report."""
    return "\n".join(_lines(report))


def _lines(report: StoredReport) -> Iterator[str]:
    overview, figures = report.overview, report.figures
    yield f"# Run {_inline(overview.info.run)}: {standing(overview)}"
    yield ""
    yield f"- {times(overview)}"
    yield f"- {rows_by_state(overview)}"
    if overview.next_at is not None:
        yield f"- held cells are tried again from {moment(overview.next_at)} on"
    if figures is not None:
        yield f"- going on for {duration(figures.seconds)}, as of {moment(figures.saved_at)}"
    for one in glance(report):
        yield f"- {one.what.lower()}: {_inline(one.told)}"
    yield from _section("Columns", tables.columns(report))
    if figures is not None and figures.resources:
        yield from _section("Requests", tables.requests(figures))
        yield from _section("Limits and load", tables.limits(figures))
        yield from _section("Where the time went", tables.paces(figures))
    if report.failed_cells:
        yield from _section("Failures", tables.causes(report))
        headings, listed, names = tables.ledger(report)
        yield ""
        yield from _table(tables.Table(headings, listed[:LISTED], names))
        if report.failed_cells > LISTED:
            yield f"\nThe first {LISTED} of {count(report.failed_cells)}; `headgate export` writes every one."


def _section(title: str, table: Table) -> Iterator[str]:
    yield from ("", f"## {title}", "")
    yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield _line(table.headings)
    yield "|" + "---|" * table.names + "---:|" * (len(table.headings) - table.names)
    yield from map(_line, table.rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_inline, cells))} |"


def _inline(said: str) -> str:
    """Text that ends no cell, begins no element, and means itself."""
    told = _MARKUP.sub(r"\\\g<0>", one_line(said))
    return told.replace("&", "&amp;").replace("<", "&lt;")
