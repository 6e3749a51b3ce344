"""What the configured limits of one scope are to the gate: numbers instead of words, this process's share of them.

Decides nothing; how limits are read and inherited is in :mod:`headgate.admission.limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .scope import ScopeLimits

if TYPE_CHECKING:
    from .limits import Limits

__all__ = ["scope_limits"]


def scope_limits(limits: Limits) -> ScopeLimits:
    """The numbers of ``limits`` for one scope, this process's share of them taken."""
    share = limits.share

    def part(value: float | None) -> float | None:
        return None if value is None else value * share

    concurrency = limits.concurrency_range()
    base = (
        ScopeLimits()
        if concurrency is None
        else ScopeLimits(
            minimum=max(1, int(concurrency.minimum * share)),
            start=max(1.0, concurrency.start * share),
            maximum=max(1, int(concurrency.maximum * share)),
            adaptive=concurrency.adaptive,
        )
    )
    return ScopeLimits(
        minimum=base.minimum,
        start=base.start,
        maximum=base.maximum,
        adaptive=base.adaptive,
        queueing=limits.queueing,
        requests_per_minute=part(limits.requests_per_minute),
        input_tokens_per_minute=part(limits.input_tokens_per_minute),
        output_tokens_per_minute=part(limits.output_tokens_per_minute),
        tokens_per_minute=part(limits.tokens_per_minute),
        cooldown_cap_s=limits.cooldown,
        startup_ramp_s=limits.startup_ramp,
        share=share,
    )
