"""The report of one engine's part of a shared run: those of its row groups, added up. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from .report import ColumnReport, ResourceReport, RunReport, RunStatus

if TYPE_CHECKING:
    from .summary import Heading

__all__ = ["LEFT", "added", "ended_early", "lasted", "nothing_yet"]

LEFT = (RunStatus.STOPPED, RunStatus.STALLED, RunStatus.BUDGET_EXHAUSTED, RunStatus.HELD)
"""Ends of a row group of which something is left for later."""

_WORST_FIRST = (*LEFT, RunStatus.COMPLETED_WITH_FAILURES, RunStatus.COMPLETED)

_FAILURES = 1_000
"""Failures that the report of a part names."""


def nothing_yet(heading: Heading) -> RunReport:
    """The report of a part before anything was done."""
    nothing = RunReport(
        heading.run, RunStatus.COMPLETED, 0, 0, 0, 0, 0, 0, 0.0, (), (), (), {}, "", heading.notices, ""
    )
    return replace(nothing, _results=heading.results)


def ended_early(report: RunReport, status: RunStatus, heading: Heading) -> RunReport:
    """``report`` of a part that ended as ``status`` while there were groups left: here, or in the hands of others."""
    worse = min(report.status, status, key=_WORST_FIRST.index)
    return replace(report, status=worse, resume_hint=heading.resume_hint(worse))


def lasted(report: RunReport, seconds: float) -> RunReport:
    """``report`` of a part that took so long. Groups go on at the same time: what set the pace is told in the same
    shares of the whole time.
    """
    scaled: list[ResourceReport] = []
    for resource in report.resources:
        total = sum(resource.seconds.values())
        shares = {pace: spent * seconds / total for pace, spent in resource.seconds.items()} if total else {}
        scaled.append(replace(resource, seconds=shares))
    return replace(report, seconds=seconds, resources=tuple(scaled))


def added(one: RunReport, other: RunReport) -> RunReport:
    """``one`` with what another row group adds to it. The worse end of the two is how both have ended."""
    columns = {column.column: column for column in one.columns}
    resources = {resource.resource: resource for resource in one.resources}
    both = {more.resource: _resource(resources.get(more.resource), more) for more in other.resources}
    return replace(
        one,
        status=min(one.status, other.status, key=_WORST_FIRST.index),
        accepted=one.accepted + other.accepted,
        done=one.done + other.done,
        failed=one.failed + other.failed,
        held=one.held + other.held,
        skipped=one.skipped + other.skipped,
        restored=one.restored + other.restored,
        columns=tuple(_column(columns.get(column.column), column) for column in other.columns),
        resources=tuple({**resources, **both}.values()),
        failures=(one.failures + other.failures)[:_FAILURES],
        failure_counts=dict(Counter(one.failure_counts) + Counter(other.failure_counts)),
        advice=other.advice or one.advice,
        notices=tuple(dict.fromkeys((*one.notices, *other.notices))),
        resume_hint=other.resume_hint or one.resume_hint,
    )


def _column(one: ColumnReport | None, other: ColumnReport) -> ColumnReport:
    if one is None:
        return other
    return ColumnReport(
        one.column,
        one.done + other.done,
        one.failed + other.failed,
        one.held + other.held,
        one.skipped + other.skipped,
        one.cost if other.cost is None else other.cost + (one.cost or 0.0),
    )


def _resource(one: ResourceReport | None, other: ResourceReport) -> ResourceReport:
    if one is None:
        return other
    paces = dict.fromkeys((*one.seconds, *other.seconds))
    return replace(
        one,
        requests=one.requests + other.requests,
        outcomes=dict(Counter(one.outcomes) + Counter(other.outcomes)),
        usage=one.usage + other.usage,
        peak_in_flight=max(one.peak_in_flight, other.peak_in_flight),
        mean_limit=one.mean_limit if other.mean_limit is None else other.mean_limit,
        busy_s=one.busy_s + other.busy_s,
        queued_s=one.queued_s + other.queued_s,
        wasted=one.wasted + other.wasted,
        seconds={pace: one.seconds.get(pace, 0.0) + other.seconds.get(pace, 0.0) for pace in paces},
        cost=one.cost if other.cost is None else other.cost + (one.cost or 0.0),
        bound_s=one.bound_s if other.bound_s is None else other.bound_s + (one.bound_s or 0.0),
    )
