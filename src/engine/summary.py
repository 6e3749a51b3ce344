"""Making the report of a run from its core and its meters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..values import Outcome
from .advice import advice_of
from .report import ColumnReport, ResourceReport, RunReport, RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..export import RunResults
    from .core import RunCore
    from .meter import Meter, ResourceMeter
    from .spending import Spending
    from .tally import Tally

__all__ = ["Heading", "status_of", "summarize"]

_USEFUL = frozenset({Outcome.SUCCESS})
_NEVER_SENT = frozenset({Outcome.CANCELLED})


@dataclass(frozen=True, slots=True)
class Heading:
    """What the report of a run says however it goes: its name, what there was to say before it began, with what it is
    resumed (nothing if it cannot be), where its results are.
    """

    run: str
    notices: tuple[str, ...]
    resumed_with: str
    results: RunResults

    def resume_hint(self, status: RunStatus) -> str:
        """How to resume the run after such an end; empty where nothing is left."""
        if status not in _RESUMABLE:
            return ""
        if not self.resumed_with:
            return "results were kept in memory only: give a store= to be able to resume"
        how = "resume with a larger budget" if status is RunStatus.BUDGET_EXHAUSTED else "resume"
        return f"{how}: run it again with {self.resumed_with}; finished cells cost nothing"


def summarize(
    heading: Heading,
    status: RunStatus,
    core: RunCore,
    meter: Meter,
    *,
    seconds: float,
    notices: Sequence[str],
    spending: Spending | None = None,
) -> RunReport:
    """The report; its counts have yet to be checked. ``notices`` are those of the time in which it went on."""
    tally = core.tally
    notices = (*heading.notices, *notices)
    resources = tuple(_resource(lane, one, spending) for lane, one in meter.resources.items())
    of_prices = () if spending is None else spending.notices
    return RunReport(
        run=heading.run,
        status=status,
        accepted=tally.accepted,
        done=tally.done,
        failed=tally.failed,
        held=tally.held,
        skipped=tally.skipped,
        restored=tally.restored,
        seconds=seconds,
        columns=tuple(
            ColumnReport(name, one.done, one.failed, one.held, one.skipped, _cost(spending, column=index))
            for index, (name, one) in enumerate(tally.columns.items())
        ),
        resources=resources,
        failures=tuple(core.ledger),
        failure_counts={(column, kind.value): count for (column, kind), count in core.ledger.counts().items()},
        advice="" if notices and not of_prices else advice_of(resources),
        notices=(*notices, *of_prices),
        resume_hint=heading.resume_hint(status),
        spent=None if spending is None else spending.spent(),
        _results=heading.results,
    )


def status_of(stopped: RunStatus | None, tally: Tally) -> RunStatus:
    """How a run ends that was ``stopped`` that way, or not (None), with these counts."""
    if stopped is not None:
        return stopped
    if tally.held:
        return RunStatus.HELD
    return RunStatus.COMPLETED_WITH_FAILURES if tally.failed else RunStatus.COMPLETED


_RESUMABLE = frozenset({RunStatus.HELD, RunStatus.STALLED, RunStatus.STOPPED, RunStatus.BUDGET_EXHAUSTED})


def _resource(lane: str, meter: ResourceMeter, spending: Spending | None) -> ResourceReport:
    wasted = sum(n for outcome, n in meter.outcomes.items() if outcome not in _USEFUL | _NEVER_SENT)
    limit = meter.mean_limit
    return ResourceReport(
        resource=lane,
        requests=meter.requests,
        outcomes={outcome.value: n for outcome, n in meter.outcomes.items()},
        usage=meter.usage,
        peak_in_flight=meter.peak,
        mean_limit=limit,
        busy_s=meter.busy_s,
        queued_s=meter.queued_s,
        wasted=wasted,
        seconds={pace.value: spent for pace, spent in meter.seconds.items()},
        bound_s=meter.busy_s / limit if limit else None,
        cost=_cost(spending, resource=lane),
    )


def _cost(spending: Spending | None, *, column: int | None = None, resource: str | None = None) -> float | None:
    return None if spending is None else spending.cost(column=column, resource=resource)
