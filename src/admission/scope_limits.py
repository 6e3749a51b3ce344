"""The numbers that one scope works under: what its configured limits are to the gate, this process's share of them.

Decides nothing; how limits are read and inherited is in :mod:`headgate.admission.limits`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from ..values import LimitKind

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..values import ResourceKey
    from .limits import Limits
    from .limits_book import LimitsBook

__all__ = ["ScopeLimits", "alias_limits", "limits_along", "limits_in_force", "scope_limits"]


@dataclass(frozen=True, slots=True)
class ScopeLimits:
    """The numbers that one scope works under; None means: no such limit is known.

    Concurrency is adaptive between ``minimum`` and ``maximum`` from ``start`` on, or fixed at ``maximum``; with
    ``queueing`` the provider never rejects, and throughput says how many are worth having in flight. Rates
    are per minute. ``cooldown_cap_s`` bounds how long one hint of the provider may block the scope, and a fixed
    limit is approached over ``startup_ramp_s`` seconds from the first request on. ``share`` is the part of what the
    provider states that this process may use; the other numbers are this process's own.
    """

    minimum: int = 1
    start: float = 4.0
    maximum: int | None = None
    adaptive: bool = False
    queueing: bool = False
    requests_per_minute: float | None = None
    input_tokens_per_minute: float | None = None
    output_tokens_per_minute: float | None = None
    tokens_per_minute: float | None = None
    cooldown_cap_s: float = 600.0
    startup_ramp_s: float = 0.0
    share: float = 1.0

    def tightest(self, other: ScopeLimits) -> ScopeLimits:
        """The limits that satisfy both: what two names of one endpoint share (A9)."""
        if not other.adaptive and other.maximum is None:  # says nothing of concurrency
            other = replace(other, minimum=self.minimum, start=self.start)
        maximum = least(self.maximum, other.maximum)
        minimum = min(self.minimum, other.minimum, inf if maximum is None else maximum)
        start = min(self.start, other.start, inf if maximum is None else maximum)
        return ScopeLimits(
            minimum=int(minimum),
            start=max(minimum, start),
            maximum=None if maximum is None else int(maximum),
            adaptive=self.adaptive or other.adaptive,
            queueing=self.queueing or other.queueing,
            requests_per_minute=least(self.requests_per_minute, other.requests_per_minute),
            input_tokens_per_minute=least(self.input_tokens_per_minute, other.input_tokens_per_minute),
            output_tokens_per_minute=least(self.output_tokens_per_minute, other.output_tokens_per_minute),
            tokens_per_minute=least(self.tokens_per_minute, other.tokens_per_minute),
            cooldown_cap_s=min(self.cooldown_cap_s, other.cooldown_cap_s),
            startup_ramp_s=max(self.startup_ramp_s, other.startup_ramp_s),
            share=min(self.share, other.share),
        )

    def alike(self, other: ScopeLimits) -> bool:
        """Whether one law of concurrency can serve both."""
        return (self.adaptive, self.queueing) == (other.adaptive, other.queueing)

    def rates(self) -> dict[LimitKind, float]:
        """The configured rates per minute, by kind."""
        stated = {
            LimitKind.REQUESTS: self.requests_per_minute,
            LimitKind.INPUT_TOKENS: self.input_tokens_per_minute,
            LimitKind.OUTPUT_TOKENS: self.output_tokens_per_minute,
            LimitKind.TOKENS: self.tokens_per_minute,
        }
        return {kind: rate for kind, rate in stated.items() if rate is not None}


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


def alias_limits(limits: Limits) -> ScopeLimits:
    """The numbers of ``limits``, which an alias states: what it leaves out, its target decides."""
    found = scope_limits(limits)
    return found if "cooldown" in limits.model_fields_set else replace(found, cooldown_cap_s=inf)


def limits_along(resource: ResourceKey, book: LimitsBook) -> dict[str, ScopeLimits]:
    """The numbers of each scope that ``resource`` passes and that ``book`` limits, by name, widest first."""
    scopes = resource.scopes()
    stated = {scope: book.for_scope(scope, leaf=scope == scopes[-1]) for scope in scopes}
    return {scope: scope_limits(limits) for scope, limits in stated.items() if limits is not None}


def limits_in_force(name: str, book: LimitsBook, aliases: Collection[str], *, leaf: bool) -> ScopeLimits | None:
    """The numbers of the scope ``name`` by ``book``, at the minimum with its ``aliases``; None if nothing limits it."""
    limits = book.for_scope(name, leaf=leaf)
    if limits is None:
        return None
    found = scope_limits(limits)
    for alias in aliases:
        stated = book.for_scope(alias)
        found = found if stated is None else found.tightest(alias_limits(stated))
    return found


def least(one: float | None, other: float | None) -> float | None:
    """The smaller of two limits of which either may be unknown."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
