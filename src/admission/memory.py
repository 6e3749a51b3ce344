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
from .law_values import FRESH_S, OLD_SHARE, RESTART_SHARE, LawMemory
from .rate_values import HOLD_MIN_S, LearnedSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..values import LimitKind, Rng
    from .estimates import TokenMemory
    from .scope import Scope

__all__ = ["FRESH_S", "ScopeMemory", "learned", "restore", "restored"]

REACHED_SHARE: Final = 0.9
REACHED_OLD_SHARE: Final = 0.25
"""Where a ramp begins that had not met a rejection: others may have come since. It is back within two doublings."""


@dataclass(frozen=True, slots=True)
class ScopeMemory:
    """What one scope learned, ``age_s`` seconds ago: when it last sent a request.

    ``measured``: a rejection has shown the concurrency; else it was only reached.
    """

    age_s: float = 0.0
    concurrency: LawMemory | None = None
    measured: bool = False
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
        scope.concurrency = _law(kept, kept.concurrency, scope.concurrency, scope, fresh=fresh)
    for kind, rate in kept.rates.items():
        scope.limiter(kind).restore(rate if fresh else replace(rate, hold_s=HOLD_MIN_S), now)
    return True


def restored(
    memory: LawMemory, age_s: float, *, minimum: int, maximum: int, rng: Rng, queueing: bool = False
) -> AdaptiveConcurrency:
    """A law that begins with what an earlier one knew ``age_s`` seconds ago, by the wall clock.

    Fresh: a little lower, and soon back to the old limit. Old: a ramp from far below it. An age that cannot be is old.
    """
    fresh = abs(age_s) <= FRESH_S
    start = (RESTART_SHARE if fresh else OLD_SHARE) * memory.limit
    law = AdaptiveConcurrency(minimum=minimum, start=start, maximum=maximum, rng=rng, settled=fresh, queueing=queueing)
    if fresh:
        law.recall(memory)
    return law


def _learned(scope: Scope, now: float) -> ScopeMemory | None:
    recalled = None
    if scope.recalled is not None:
        memory, at = scope.recalled
        recalled = replace(memory, age_s=memory.age_s + max(0.0, now - at))
        if not scope.used:
            return recalled
    sent = max([limiter.last_sent for limiter in scope.limiters.values()], default=-inf)
    concurrency, measured = _concurrency(scope, recalled)
    found = ScopeMemory(
        age_s=0.0 if sent == -inf else max(0.0, now - sent),
        concurrency=concurrency,
        measured=measured,
        rates={
            kind: snapshot
            for kind, limiter in scope.limiters.items()
            if (snapshot := limiter.learned()).base is not None
        },
        tokens=scope.estimates.learned(),
    )
    return found if found.concurrency or found.rates or found.tokens else None


def _concurrency(scope: Scope, recalled: ScopeMemory | None) -> tuple[LawMemory | None, bool]:
    law = scope.concurrency
    if not scope.used or not isinstance(law, AdaptiveConcurrency):
        return None, False
    before = None if recalled is None else recalled.concurrency
    if recalled is None or before is None:
        return law.memory(), law.rejections > 0
    if not law.rejections and before.limit >= law.limit:
        return before, recalled.measured  # nothing has spoken against it: restarts must not wear it down
    return law.memory(), law.rejections > 0 or recalled.measured


def _law(
    kept: ScopeMemory, concurrency: LawMemory, law: AdaptiveConcurrency, scope: Scope, *, fresh: bool
) -> AdaptiveConcurrency:
    if kept.measured:
        return restored(
            concurrency, kept.age_s, minimum=law.minimum, maximum=law.maximum, rng=scope.rng, queueing=law.queueing
        )
    # Holding a level that only lacked demand would be slower than finding it anew.
    share = REACHED_SHARE if fresh else REACHED_OLD_SHARE
    start = max(law.limit, share * concurrency.limit)
    return AdaptiveConcurrency(
        minimum=law.minimum, start=start, maximum=law.maximum, rng=scope.rng, queueing=law.queueing
    )
