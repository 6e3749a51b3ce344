"""What sets the pace of a resource at this instant, read from the parts that know."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..admission.values import DenyReason
from .meter import Meter, Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..admission.controller import AdmissionController
    from ..values import ResourceKey
    from .core import RunCore
    from .dispatch import Dispatch
    from .recording import Recorder
    from .telling import RunTeller

__all__ = ["PaceReader", "pace_of"]

PACE_EVERY_S = 0.005
"""What sets the pace is sampled at steps, but not more often than this: far below any latency that it explains."""

_BLOCKED = {
    DenyReason.COOLDOWN: Pace.COOLDOWN,
    DenyReason.REQUEST_RATE: Pace.REQUEST_LIMIT,
    DenyReason.TOKEN_RATE: Pace.TOKEN_LIMIT,
}


def pace_of(
    lane: str,
    resource: ResourceKey,
    core: RunCore,
    dispatch: Dispatch,
    controller: AdmissionController,
    meter: Meter,
) -> Pace:
    """The one thing that would have to change for ``lane`` to go faster now."""
    if dispatch.has_bid(lane):
        reason = controller.gate.waiting_for(resource)
        return Pace.CONCURRENCY_LIMIT if reason is None else _BLOCKED.get(reason, Pace.CONCURRENCY_LIMIT)
    if core.dispatcher.ready(lane):
        return Pace.BUDGET if core.dispatcher.is_passed(lane) else Pace.WORKERS
    if meter.of(lane).in_flight:
        return Pace.LATENCY
    if core.salvage.held_on(lane) or lane in core.left.lanes:
        return Pace.HELD_BACK
    return Pace.STORE if core.journal.in_commit else Pace.NO_READY_WORK


class PaceReader:
    """Reads the pace of every resource of a run into its meters now and then, and has its ``recorder`` take samples."""

    __slots__ = ("_controller", "_core", "_dispatch", "_meter", "_recorder", "_resources", "_teller", "due_at")

    def __init__(
        self,
        resources: Mapping[str, ResourceKey],
        core: RunCore,
        dispatch: Dispatch,
        controller: AdmissionController,
        meter: Meter,
        recorder: Recorder | None = None,
        teller: RunTeller | None = None,
    ) -> None:
        self._recorder = recorder
        self._teller = teller
        self._resources = resources
        self._core = core
        self._dispatch = dispatch
        self._controller = controller
        self._meter = meter
        self.due_at = -inf
        """When the next sample is due. To be read only."""

    def read(self, now: float) -> None:
        """Take a sample."""
        self.due_at = now + PACE_EVERY_S
        for lane, resource in self._resources.items():
            pace = pace_of(lane, resource, self._core, self._dispatch, self._controller, self._meter)
            meter, limit = self._meter.of(lane), self._controller.gate.capacity(resource)
            meter.turn(pace, limit, now)
            if self._teller is not None:
                self._teller.pace(lane, pace, limit, meter.in_flight)
        if self._recorder is not None and now >= self._recorder.due_at:
            self._recorder.sample(now)
