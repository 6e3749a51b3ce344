"""One look at a run in progress, for live views and for tests."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from ..values import Usage
from .report import ColumnReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..admission.controller import AdmissionController
    from ..prices.budget import Budget
    from ..values import ResourceKey
    from .core import RunCore
    from .meter import Meter
    from .spending import Spending, Spent

_NO_TOKENS = Usage()

__all__ = ["ResourceStatistics", "RunStatistics", "look"]


@dataclass(frozen=True, slots=True)
class ResourceStatistics:
    """One resource now. ``pace`` says what sets its speed, or why it has none: ``paused``, ``parked`` until somebody
    repairs a key or a quota, ``given up`` since nothing worked there for too long, ``blocked`` for another run.
    ``blocked_s`` is what is left of a cooldown, ``inf`` of what has no end by itself. ``usage`` are the tokens of all
    attempts that came to an end.
    """

    resource: str
    in_flight: int
    limit: float
    ready: int
    held: int
    requests: int
    rate_limited: int
    blocked_s: float
    pace: str
    usage: Usage = _NO_TOKENS


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """A run now. Rows and cells are counted once they are committed; ``open_rows`` are on their way. The cells that a
    column has ``held`` are those that wait for their time now, and those that are left for a later run, as the rows
    that are ``held`` at the end. Of columns ``given_up`` no more comes in this run. ``ending`` is empty while the run
    goes on, then ``draining`` or ``stopping``, and at last its status. ``spent`` is None where nothing is kept account
    of.
    """

    run: str
    seconds: float
    accepted: int
    done: int
    failed: int
    skipped: int
    restored: int
    open_rows: int
    columns: tuple[ColumnReport, ...]
    resources: tuple[ResourceStatistics, ...]
    held: int = 0
    given_up: tuple[str, ...] = ()
    ending: str = ""
    spent: Spent | None = None
    budget: Budget | None = None

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.ending not in {"", "draining", "stopping"}


def look(
    run: str,
    core: RunCore,
    meter: Meter,
    controller: AdmissionController,
    resources: Mapping[str, ResourceKey],
    now: float,
    *,
    ending: str = "",
    spending: Spending | None = None,
) -> RunStatistics:
    """Read the parts of a run. Costs some 10 us per resource."""
    tally = core.tally
    # Rows that are left at the end take the cells with them that waited for their time.
    waiting = [0] * len(core.plans) if tally.held else core.frontier.held_cells
    return RunStatistics(
        run=run,
        seconds=now - meter.started_at,
        accepted=tally.accepted,
        done=tally.done,
        failed=tally.failed,
        skipped=tally.skipped,
        restored=tally.restored,
        open_rows=len(core.rows),
        columns=tuple(
            ColumnReport(name, one.done, one.failed, one.held + held, one.skipped)
            for (name, one), held in zip(tally.columns.items(), waiting, strict=True)
        ),
        resources=tuple(_resource(lane, key, core, meter, controller) for lane, key in resources.items()),
        held=tally.held,
        given_up=tuple(plan.name for plan in core.plans if plan.lane in core.left.lanes),
        ending=ending,
        spent=None if spending is None else spending.so_far,
        budget=None if spending is None else spending.budget,
    )


def _resource(
    lane: str, key: ResourceKey, core: RunCore, meter: Meter, controller: AdmissionController
) -> ResourceStatistics:
    pressure = controller.pressure(key)
    mine = meter.of(lane)
    return ResourceStatistics(
        resource=lane,
        in_flight=pressure.in_flight,
        limit=pressure.limit,
        ready=core.dispatcher.ready(lane),
        held=core.salvage.held_on(lane),
        requests=mine.requests,
        rate_limited=pressure.rate_limited,
        blocked_s=pressure.blocked_s,
        pace=_pace(lane, key, core, controller, pressure.blocked_s) or mine.pace.value,
        usage=mine.usage,
    )


def _pace(lane: str, key: ResourceKey, core: RunCore, controller: AdmissionController, blocked_s: float) -> str:
    """Why ``lane`` does nothing at all for now; empty if it does."""
    if lane in core.left.lanes:
        return "parked" if lane in core.left.parked else "given up"
    if blocked_s < inf:
        return ""
    return "blocked" if controller.paused.isdisjoint(key.scopes()) else "paused"
