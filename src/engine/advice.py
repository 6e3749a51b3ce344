"""The one knob that would make a run faster, in a sentence."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .meter import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .report import ResourceReport

__all__ = ["advice_of"]

_ADVICE: Mapping[Pace, str] = {
    Pace.CONCURRENCY_LIMIT: "{resource} was full most of the time: raise its concurrency if the provider allows more",
    Pace.REQUEST_LIMIT: "{resource} waited for its request rate: raise requests_per_minute if your tier allows more",
    Pace.TOKEN_LIMIT: "{resource} waited for its token rate: raise its tokens-per-minute limits, or send less",
    Pace.COOLDOWN: "{resource} spent most of the time in cooldown: the provider allows less than was asked of it",
    Pace.HELD_BACK: "{resource} had only held-back tasks most of the time: see the failures and the provider's state",
    Pace.STORE: "the store set the pace: put it on a faster disk",
    Pace.WORKERS: "max_workers set the pace of {resource}: raise it",
    Pace.BUDGET: "the budget had no room for more calls of {resource} at once: raise it; where a column states no "
    "tokens and max_output_tokens, state both: it began with one call",
    Pace.NO_READY_WORK: "{resource} had nothing to do most of the time: rows come too slowly, or another column does",
}

_REFUSED = (
    "{resource} was full most of the time, at {limit:.0f} requests at once; {refused} beyond that were refused, so "
    "no setting here makes it faster, only more room at the provider or a second model"
)
"""A limit that was learned from refusals: to raise it would only buy more of them."""


def advice_of(resources: tuple[ResourceReport, ...]) -> str:
    """Name the knob behind the largest share of the busiest resource's time; empty where no share has half of it.

    The latency of a provider has no knob.
    """
    if not resources:
        return ""
    busiest = max(resources, key=lambda resource: resource.busy_s)
    total = sum(busiest.seconds.values())
    if total <= 0:
        return ""
    reason, spent = max(busiest.seconds.items(), key=lambda item: item[1])
    template = _ADVICE.get(Pace(reason))
    if template is None or spent < total / 2:
        return ""
    limit, refused = busiest.mean_limit or inf, busiest.rate_limited
    if reason == Pace.CONCURRENCY_LIMIT.value and refused and busiest.peak_in_flight > limit:
        return _REFUSED.format(resource=busiest.resource, limit=limit, refused=refused)
    return template.format(resource=busiest.resource)
