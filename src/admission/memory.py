"""What a scope learned, as values that outlive the process, and how a later process begins with them.

Decides what is worth keeping and how far it is believed: what was learned within the hour nearly as it was, older
things as a place to start looking from. What somebody configured since then wins: a fixed limit learns nothing, and no
bound is exceeded. A scope that was in use since is left alone.

Does not decide when to write, nor where (:mod:`headgate.engine.keeping` does). Ages are in seconds; a wall clock
exists only where the record is written.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Final

from .concurrency import AdaptiveConcurrency
from .rate_learned import HOLD_MIN_S, LearnedSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..values import LimitKind, Rng
    from .estimates import TokenMemory
    from .scope import Scope, ScopeLimits

__all__ = ["FRESH_S", "LawMemory", "ScopeMemory", "learned", "restore"]

FRESH_S: Final = 3600.0
"""What was learned within this time is likely to hold still: quotas change by the day, load by the hour."""

FRESH_SHARE: Final = 0.9
"""Others may have come since: a little less than what was learned, and the law grows back by itself."""

OLD_SHARE: Final = 0.25
"""Two doublings below: a ramp is there in two seconds if it still holds, and does little harm if it does not."""


@dataclass(frozen=True, slots=True)
class LawMemory:
    """A concurrency limit that was learned. ``measured``: a rejection has shown it; else it was only reached."""

    limit: float
    measured: bool


@dataclass(frozen=True, slots=True)
class ScopeMemory:
    """What one scope learned, ``age_s`` seconds ago: when it last sent a request."""

    age_s: float = 0.0
    concurrency: LawMemory | None = None
    rates: Mapping[LimitKind, LearnedSnapshot] = field(default_factory=dict["LimitKind", LearnedSnapshot])
    tokens: TokenMemory | None = None


def learned(scopes: Iterable[Scope], now: float) -> dict[str, ScopeMemory]:
    """What ``scopes`` know that is worth keeping, by name."""
    kept = {scope.name: _learned(scope, now) for scope in scopes}
    return {name: memory for name, memory in kept.items() if memory is not None}


def restore(scope: Scope, kept: ScopeMemory, now: float, *, age_s: float) -> bool:
    """Let ``scope`` begin with what was written ``age_s`` ago.

    False if it was used already, or began with something younger: then it only gets to know kinds of requests that it
    has not seen yet.
    """
    kept = replace(kept, age_s=kept.age_s + age_s)
    if kept.tokens is not None:
        scope.estimates.restore(kept.tokens)
    if scope.used or (scope.recalled is not None and scope.recalled[0].age_s <= kept.age_s):
        return False
    scope.recalled = kept, now
    fresh = 0.0 <= kept.age_s <= FRESH_S
    if kept.concurrency is not None and isinstance(scope.concurrency, AdaptiveConcurrency):
        scope.concurrency = _law(kept.concurrency, scope.limits, scope.concurrency, scope.rng, fresh=fresh)
    for kind, rate in kept.rates.items():
        scope.limiter(kind).restore(rate if fresh else replace(rate, hold_s=HOLD_MIN_S), now)
    return True


def _learned(scope: Scope, now: float) -> ScopeMemory | None:
    recalled = None
    if scope.recalled is not None:
        memory, at = scope.recalled
        recalled = replace(memory, age_s=memory.age_s + max(0.0, now - at))
        if not scope.used:
            return recalled
    sent = max([limiter.last_sent for limiter in scope.limiters.values()], default=-inf)
    found = ScopeMemory(
        age_s=0.0 if sent == -inf else max(0.0, now - sent),
        concurrency=_concurrency(scope, recalled, now),
        rates={
            kind: snapshot
            for kind, limiter in scope.limiters.items()
            if (snapshot := limiter.learned()).base is not None
        },
        tokens=scope.estimates.learned(),
    )
    return found if found.concurrency or found.rates or found.tokens else None


def _concurrency(scope: Scope, recalled: ScopeMemory | None, now: float) -> LawMemory | None:
    law = scope.concurrency
    if not scope.used or not isinstance(law, AdaptiveConcurrency):
        return None
    before = None if recalled is None else recalled.concurrency
    if before is not None and not law.rejections and before.limit >= law.limit:
        return before  # nothing has spoken against it; restarting again and again must not wear it down
    return LawMemory(law.limit, measured=law.rejections > 0 or (before is not None and before.measured))


def _law(
    kept: LawMemory, limits: ScopeLimits, law: AdaptiveConcurrency, rng: Rng, *, fresh: bool
) -> AdaptiveConcurrency:
    share = FRESH_SHARE if fresh else OLD_SHARE
    start = max(min(limits.start, kept.limit), share * kept.limit)
    return AdaptiveConcurrency(
        minimum=law.minimum, start=start, maximum=law.maximum, rng=rng, settled=fresh and kept.measured
    )
