"""The body of a report's page, section by section. Pure: what is drawn is listed for the page's script.

Everything that comes from outside passes :func:`html.escape` here, and nowhere else is HTML made.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from . import charts, tables
from .glance import glance
from .wording import count, duration, large, moment, money, share, standing, times

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .charts import Chart
    from .figures import ResourceFigures, RunFigures
    from .reading import StoredReport
    from .tables import Table

__all__ = ["body"]

_MOODS: Final = {
    "completed": "good",
    "completed_with_failures": "bad",
    "stalled": "bad",
    "budget_exhausted": "bad",
}

_ALERTS: Final = {"failed": "bad", "held": "wait", "pending": "wait"}
"""Numbers that are to be seen unless they are zero."""

UNFOLDED: Final = 4
"""Resources whose chart is drawn at once; those of the others when they are unfolded."""

LIVES_TOLD: Final = 3
"""Resumptions that are told with their times."""

_NO_FIGURES: Final = (
    "This run kept no figures of its course. A run keeps them from 10 seconds after its start on, each minute and at "
    "its end; not if several engines share it, and not if it ended under a version that kept none."
)


def body(report: StoredReport, drawn: list[Chart]) -> str:
    """The body; its charts are added to ``drawn``, at the numbers by which it refers to them."""
    return "\n".join(_parts(report, drawn))


def _parts(report: StoredReport, drawn: list[Chart]) -> Iterator[str]:
    yield _head(report)
    yield _tiles(report)
    yield _glance(report)
    figures = report.figures
    if figures is None:
        yield _section("Over time", _note(_NO_FIGURES))
    else:
        told = f"Rows that came to an end, and requests to each resource. {_course(figures)}"
        yield _section("Throughput", _note(told), _chart(charts.throughput(figures), drawn, "Too short to be drawn."))
        if figures.resources:
            yield from _resources(figures, drawn)
    spent = _chart(charts.tokens(report), drawn, "No tokens are on record.")
    yield _section("Columns", _table(tables.columns(report)), spent, place="columns")
    yield _failures(report)


def _head(report: StoredReport) -> str:
    overview = report.overview
    status = f'<span class="status {_MOODS.get(overview.info.status, "wait")}">{escape(standing(overview))}</span>'
    return (
        f"<header><h1>{escape(overview.info.run)}</h1><p>{status}"
        f'<br><span class="muted">{escape(times(overview))}</span></p></header>'
    )


def _glance(report: StoredReport) -> str:
    """What the page says, in sentences that lead to where it shows it."""
    shown = "".join(
        f'<div><dt>{one.what}</dt><dd class="{one.mood}"><a href="#{one.place}">{escape(one.told)}</a></dd></div>'
        for one in glance(report)
    )
    return _section("In short", f'<dl class="glance">{shown}</dl>')


def _tiles(report: StoredReport) -> str:
    shown = "".join(
        f'<div><dt>{name}</dt><dd class="{_ALERTS.get(name, "") if told != "0" else ""}">{told}</dd></div>'
        for name, told in _numbers(report)
    )
    return f'<dl class="tiles">{shown}</dl>'


def _numbers(report: StoredReport) -> Iterator[tuple[str, str]]:
    overview, figures = report.overview, report.figures
    yield "rows", count(overview.rows)
    yield "whole", count(overview.whole)
    yield "failed", count(overview.failed)
    yield "held", count(overview.held)
    yield "pending", count(overview.pending)
    if figures is not None:
        yield "time", duration(figures.seconds)
        yield "requests", large(sum(one.requests for one in figures.resources.values()))
        yield "429s", large(sum(one.refused for one in figures.resources.values()))
    yield "tokens in", large(sum(one.usage.input_tokens for one in overview.columns))
    yield "tokens out", large(sum(one.usage.output_tokens for one in overview.columns))
    if report.costs:
        yield "cost", f"{money(sum(report.costs.values()))} <small>{escape(report.currency)}</small>"


def _course(figures: RunFigures) -> str:
    told = f"{duration(figures.seconds)} of work, as of {moment(figures.saved_at)}."
    resumed = figures.lives[1:]
    if len(resumed) > LIVES_TOLD:
        told += f" Resumed {len(resumed)} times, last at {moment(resumed[-1][1])}: dotted lines."
    elif resumed:
        told += f" Resumed at {', '.join(moment(wall) for _, wall in resumed)}: dotted lines."
    return escape(told)


def _resources(figures: RunFigures, drawn: list[Chart]) -> Iterator[str]:
    told = _note("What was in flight under which concurrency limit, and what was refused.")
    yield _section("Limits and load", told, *_loads(figures, drawn))
    paced = _note("What would have had to change for a resource to go faster.")
    answered = _note("Of successful requests.")
    yield '<div class="pair">'
    yield _section(
        "Where the time went", paced, _chart(charts.pace(figures), drawn, "No resource was in use."), place="pace"
    )
    yield _section("Time to an answer", answered, _chart(charts.latency(figures), drawn, "No request succeeded."))
    yield "</div>"
    held = charts.held_back(figures)
    if held is None:
        yield _section("Held back", _note("Nothing was held back whenever a sample was taken."), place="held")
    else:
        told = _note("Tasks that waited for their time to be tried again.")
        yield _section("Held back", told, _chart(held, drawn), place="held")
    yield _section("Requests", _table(tables.requests(figures)), _table(tables.limits(figures)))


def _loads(figures: RunFigures, drawn: list[Chart]) -> Iterator[str]:
    for place, (name, one) in enumerate(charts.by_requests(figures)):
        unfolded = " open" if place < UNFOLDED else ""
        yield f"<details{unfolded}><summary><h3>{escape(name)}</h3> {_load(one)}</summary>"
        yield _chart(charts.load(name, one, figures), drawn)
        yield "</details>"


def _load(one: ResourceFigures) -> str:
    refused = f"{count(one.refused)} refused ({share(one.refused, one.requests)})" if one.refused else "none refused"
    return f'<span class="muted">{count(one.requests)} requests, {refused}</span>'


def _failures(report: StoredReport) -> str:
    overview = report.overview
    if not report.failed_cells:
        return _section("Failures", _note("No cell failed."), place="failures")
    listed = len(overview.failures)
    told = f"{count(report.failed_cells)} cells failed."
    if listed < report.failed_cells:
        told += (
            f" The first {count(listed)} of them by row are listed; the counts are of all."
            " <code>headgate export</code> writes every one."
        )
    places = {cause: place for place, cause in enumerate(overview.failure_counts)}
    marks = [f' data-cause="{places[cell.column, cell.reason]}"' for cell in overview.failures]
    counts = _causes(tables.causes(report))
    listed_ones = _ledger(tables.ledger(report), marks)
    return _section("Failures", _note(told), counts, _search(report), listed_ones, place="failures")


def _search(report: StoredReport) -> str:
    options = "".join(
        f'<option value="{place}">{escape(column)}: {escape(reason)} ({count(n)})</option>'
        for place, ((column, reason), n) in enumerate(report.overview.failure_counts.items())
    )
    return (
        '<div class="search"><input id="search" type="search" placeholder="Search row, column, message\u2026"'
        ' aria-label="Search the failures"><select id="cause" aria-label="Cause"><option value="">every cause</option>'
        f'{options}</select><output id="found"></output></div>'
    )


def _section(title: str, *parts: str, place: str = "") -> str:
    named = f' id="{place}"' if place else ""
    return "\n".join((f"<section{named}><h2>{title}</h2>", *filter(None, parts), "</section>"))


def _note(told: str) -> str:
    return f'<p class="note">{told}</p>'


def _chart(chart: Chart | None, drawn: list[Chart], without: str = "") -> str:
    """Where a chart is drawn; or what is said instead of it."""
    if chart is None:
        return _note(without)
    drawn.append({"data": chart["data"], "layout": chart["layout"]})
    height, label = chart["layout"]["height"], escape(chart["label"])
    place = f'data-chart="{len(drawn) - 1}" style="height:{height}px"'
    return f'<div class="chart" role="img" aria-label="{label}" {place}></div>'


def _table(table: Table) -> str:
    return f'<div class="scroll" tabindex="0"><table>{_rows(table, [""] * len(table.rows))}</table></div>'


def _causes(table: Table) -> str:
    rows = _rows(table, [""] * len(table.rows))
    return f'<div class="scroll causes" tabindex="0"><table class="narrow">{rows}</table></div>'


def _ledger(table: Table, marks: Iterable[str]) -> str:
    return f'<div class="scroll ledger" tabindex="0"><table id="ledger">{_rows(table, marks)}</table></div>'


def _rows(table: Table, marks: Iterable[str]) -> str:
    numbers = len(table.headings) - table.names
    kinds = ["said" if one == "message" else "name" for one in table.headings[: table.names]] + ["n"] * numbers
    lines = (
        f"<tr{mark}>{''.join(map(_cell, kinds, row, ['td'] * len(row)))}</tr>"
        for mark, row in zip(marks, table.rows, strict=True)
    )
    head = "".join(map(_cell, kinds, table.headings, ["th"] * len(kinds)))
    body_rows = "\n".join(lines)
    return f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body_rows}\n</tbody>"


def _cell(kind: str, told: str, element: str) -> str:
    return f'<{element} class="{kind}">{escape(told)}</{element}>'
