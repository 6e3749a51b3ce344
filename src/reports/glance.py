"""A report in a few sentences: what set the pace, what failed, what is left, what it cost. Pure.

They say no more than the charts and tables do, only first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .charts import by_requests
from .wording import count, money, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .figures import ResourceFigures
    from .reading import StoredReport

__all__ = ["Finding", "glance"]

CAUSES_TOLD: Final = 3
PACES_TOLD: Final = 2
COLUMNS_TOLD: Final = 3

HELD: Final = "held back"
_FREE: Final = frozenset({"provider latency", "no ready work", HELD})
"""What is no limit: of these none would let a run go faster if it were raised."""


class Finding(NamedTuple):
    """A sentence under its heading. ``mood`` is ``bad``, ``wait`` or empty; ``place`` where the page says more."""

    what: str
    told: str
    mood: str
    place: str


def glance(report: StoredReport) -> Iterator[Finding]:
    """What a reader wants to know first, in that order."""
    if report.figures is not None:
        yield from _pace(dict(by_requests(report.figures)))
    yield from _failed(report)
    yield from _left(report)
    yield from _cost(report)


def _pace(resources: Mapping[str, ResourceFigures]) -> Iterator[Finding]:
    """The resource that was at a limit for the largest part of its time, and those that only waited to try again."""
    limited = {name: _shares(one.seconds, free=False) for name, one in resources.items() if any(one.seconds.values())}
    if not limited:
        return
    slowest = max(limited, key=lambda name: sum(limited[name].values()))
    shares = limited[slowest]
    if sum(shares.values()) >= 0.5:
        named = sorted(shares.items(), key=lambda item: -item[1])[:PACES_TOLD]
        why = ", ".join(f"{reason} {_percent(share)}" for reason, share in named if share >= 0.005)
        told = f"{shortened(slowest)} set it: {why} of its time."
    elif any(one.requests for one in resources.values()):
        told = "No limit did for most of the time: answers took as long as they took, or rows came no faster."
    else:
        told = "No request was made."
    yield Finding("Pace", told, "", "pace")
    for name, one in resources.items():
        held = _shares(one.seconds, free=True).get(HELD, 0.0)
        if held >= 0.5:
            told = f"{shortened(name)} had nothing but held-back tasks for {_percent(held)} of its time."
            yield Finding("Held back", told, "wait", "held")


def _shares(seconds: Mapping[str, float], *, free: bool) -> dict[str, float]:
    total = sum(seconds.values()) or 1.0
    return {reason: spent / total for reason, spent in seconds.items() if (reason in _FREE) == free}


def _failed(report: StoredReport) -> Iterator[Finding]:
    if not report.failed_cells:
        yield Finding("Failed", "No cell.", "", "failures")
        return
    causes = sorted(report.overview.failure_counts.items(), key=lambda item: -item[1])
    told = ", ".join(
        f"{shortened(column)} {shortened(reason)} ({count(cells)})" for (column, reason), cells in causes[:CAUSES_TOLD]
    )
    more = f", and {len(causes) - CAUSES_TOLD} more causes" if len(causes) > CAUSES_TOLD else ""
    cells = "cell" if report.failed_cells == 1 else "cells"
    rows = f" of {count(report.overview.failed)} rows" if report.overview.failed else ""  # others of theirs are held
    told = f"{count(report.failed_cells)} {cells}{rows}: {told}{more}."
    yield Finding("Failed", told, "bad", "failures")


def _left(report: StoredReport) -> Iterator[Finding]:
    overview = report.overview
    left = overview.held + overview.pending
    if not left:
        return
    rows = "row is" if left == 1 else "rows are"
    told = f"{count(left)} {rows} not finished; resume the run to go on."
    if overview.info.status == "running" and not overview.abandoned:
        told = f"{count(left)} {rows} not finished."
    yield Finding("Left", told, "wait", "columns")


def _cost(report: StoredReport) -> Iterator[Finding]:
    total = sum(report.costs.values())
    if not total:
        return
    columns = sorted(report.costs.items(), key=lambda item: -item[1])
    told = ", ".join(f"{shortened(column)} {_percent(cost / total)}" for column, cost in columns[:COLUMNS_TOLD])
    told = f"{money(total)} {report.currency}: {told}." if len(columns) > 1 else f"{money(total)} {report.currency}."
    yield Finding("Cost", told, "", "columns")


def _percent(part: float) -> str:
    return f"{100 * part:.0f}\u202f%"
