"""What sets the pace of a resource at this instant, read from the parts that know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..admission.values import DenyReason
from .meter import Meter, Pace

if TYPE_CHECKING:
    from ..admission.controller import AdmissionController
    from ..values import ResourceKey
    from .core import RunCore
    from .dispatch import Dispatch

__all__ = ["pace_of"]

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
        return Pace.WORKERS
    if meter.of(lane).in_flight:
        return Pace.LATENCY
    if core.salvage.held_on(lane):
        return Pace.HELD_BACK
    return Pace.STORE if core.journal.in_commit else Pace.NO_READY_WORK
