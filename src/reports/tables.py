"""The tables of a report: headings and cells as text, the same for a page and for Markdown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..values import Usage
from .histogram import quantile_s
from .wording import count, duration, money, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..storage.overview import FailedCell
    from .figures import ResourceFigures, RunFigures
    from .reading import StoredReport

__all__ = ["Table", "causes", "columns", "ledger", "limits", "paces", "requests"]


class Table(NamedTuple):
    """Rows below headings. The first ``names`` columns are text, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


def columns(report: StoredReport) -> Table:
    """Cells by outcome and tokens, by column."""
    priced = bool(report.costs)
    headings = ("column", "model", "done", "failed", "skipped", "held", "open", "tokens in", "tokens out")
    models = {} if report.figures is None else report.figures.models
    rows: list[Sequence[str]] = []
    for one in report.overview.columns:
        numbers = (
            one.done,
            one.failed,
            one.skipped,
            one.held,
            one.open,
            one.usage.input_tokens,
            one.usage.output_tokens,
        )
        cost = report.costs.get(one.column)
        told = () if not priced else (_cost(cost, one.usage),)
        rows.append((one.column, models.get(one.column) or "\u2013", *map(count, numbers), *told))
    return Table((*headings, f"cost, {report.currency}") if priced else headings, rows, names=2)


def requests(figures: RunFigures) -> Table:
    """Attempts, and how long the successful ones took, by resource."""
    headings = ("resource", "requests", "429s", "other failures", "median", "95 %", "99 %")
    return Table(headings, [_requests(name, one) for name, one in figures.resources.items()])


def limits(figures: RunFigures) -> Table:
    """What was in flight, under which limit, and the time spent in the queue, by resource."""
    headings = ("resource", "peak in flight", "mean limit", "mean wait", "tokens in", "tokens out")
    rows = [
        (name, count(one.peak), "none" if one.mean_limit is None else f"{one.mean_limit:.1f}",
         duration(one.queued_s / one.requests if one.requests else None), count(one.input_tokens),
         count(one.output_tokens))
        for name, one in figures.resources.items()
    ]  # fmt: skip
    return Table(headings, rows)


def paces(figures: RunFigures) -> Table:
    """Where the time went: what set the pace of each resource, in shares of the time."""
    reasons = dict.fromkeys(reason for one in figures.resources.values() for reason in one.seconds)
    rows = [
        (name, *(share(one.seconds.get(reason, 0.0), sum(one.seconds.values())) for reason in reasons))
        for name, one in figures.resources.items()
    ]
    return Table(("resource", *reasons), rows)


def causes(report: StoredReport) -> Table:
    """Failed cells by column and reason."""
    counts = sorted(report.overview.failure_counts.items(), key=lambda item: -item[1])
    return Table(("column", "reason", "cells"), [(*key, count(n)) for key, n in counts], names=2)


def ledger(report: StoredReport) -> Table:
    """Failed cells, the first of them."""
    headings = ("row", "column", "reason", "message", "attempts", "status")
    return Table(headings, [_failure(cell) for cell in report.overview.failures], names=4)


def _cost(cost: float | None, usage: Usage) -> str:
    """A column that used nothing has no cost; of one that did and has none, nobody knows the price."""
    if cost is None:
        return "unknown" if usage != Usage() else "\u2013"
    return money(cost)


def _failure(cell: FailedCell) -> Sequence[str]:
    status = "\u2013" if cell.http_status is None else str(cell.http_status)
    return (cell.row_id, cell.column, cell.reason, cell.message, str(cell.attempts), status)


def _requests(name: str, one: ResourceFigures) -> Sequence[str]:
    others = one.requests - one.outcomes.get("success", 0) - one.outcomes.get("cancelled", 0) - one.refused
    quantiles = (duration(quantile_s(one.latencies, part)) for part in (0.5, 0.95, 0.99))
    return (name, count(one.requests), count(one.refused), count(others), *quantiles)
