"""One look at a run in progress, for live views and for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..values import Usage
from .report import ColumnReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..admission.controller import AdmissionController
    from ..values import ResourceKey
    from .core import RunCore
    from .meter import Meter

_NO_TOKENS = Usage()

__all__ = ["ResourceStatistics", "RunStatistics", "look"]


@dataclass(frozen=True, slots=True)
class ResourceStatistics:
    """One resource now. ``pace`` says what sets its speed, ``blocked_s`` is what is left of a cooldown, ``inf`` of a
    pause. ``usage`` are the tokens of all attempts that came to an end.
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
    column has ``held`` are those that wait for their time now, and those that are left for a later run.
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


def look(
    run: str,
    core: RunCore,
    meter: Meter,
    controller: AdmissionController,
    resources: Mapping[str, ResourceKey],
    now: float,
) -> RunStatistics:
    """Read the parts of a run. Costs some 10 us per resource."""
    tally = core.tally
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
            for (name, one), held in zip(tally.columns.items(), core.frontier.held_cells, strict=True)
        ),
        resources=tuple(_resource(lane, key, core, meter, controller) for lane, key in resources.items()),
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
        pace=mine.pace.value,
        usage=mine.usage,
    )
