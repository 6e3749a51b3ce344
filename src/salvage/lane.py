"""One lane: the held tasks of one resource (or of one local column) and everything that holds them back.

Decides when its earliest task may go. Which lane that is, and what becomes of a task, is in :mod:`.salvage`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from .breaker import Breaker
from .budget import RetryBudget
from .held import Timetable
from .pacing import ReleasePace

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..values import Rng
    from .kinds import FailureKind
    from .policy import SalvagePolicy

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

__all__ = ["Lane"]


class Lane(Generic[K]):
    """A timetable behind four gates: parked, breaker, budget, pace."""

    def __init__(self, name: str, policy: SalvagePolicy, rng: Rng, now: float) -> None:
        self.name = name
        self.parked: FailureKind | None = None
        self.held: Timetable[K] = Timetable()
        self.breaker: Breaker[K] = Breaker(
            outage_min=policy.outage_min,
            probe_base_s=policy.probe_base_s,
            probe_cap_s=policy.probe_cap_s,
            rng=rng,
        )
        self.budget = RetryBudget(
            now, ratio=policy.retry_ratio, reserve_per_s=policy.retry_reserve_per_s, burst=policy.retry_burst
        )
        self.pace = ReleasePace(share=policy.release_share, minimum=policy.release_min)
        self._grace_s = policy.probe_grace_s

    @property
    def well(self) -> bool:
        """Whether the lane is neither parked nor in an outage."""
        return self.parked is None and not self.breaker.is_open

    def ready_at(self, now: float, *, fresh: bool) -> float:
        """When the earliest held task may go, as far as is known now; inf while only an event can tell.

        With ``fresh`` work on the lane a task keeps to the pace, and leaves the probe to the fresh work for a
        while.
        """
        head = self.held.head()
        if head is None or self.parked is not None:
            return inf
        not_before, _ = head
        if self.breaker.is_open:
            if self.breaker.probing:
                return inf
            return max(not_before, self.breaker.opens_at + (self._grace_s if fresh else 0.0))
        ready = max(not_before, self.budget.ready_at(now))
        return max(ready, self.pace.ready_at(now)) if fresh else ready

    def take(self, now: float) -> tuple[K, bool]:
        """Remove the earliest task, when :meth:`ready_at` allows. Return it, and whether it took a token."""
        task = self.held.pop()
        self.pace.released(now)
        if self.breaker.is_open:
            # The breaker spaces probes by itself; an empty budget must not keep the lane from being found
            # well.
            self.breaker.probe_sent(task, now)
            return task, False
        self.budget.spend(now)
        return task, True

    def check(self) -> None:
        """Assert the invariants."""
        self.held.check()
        self.breaker.check()
        self.budget.check()
        self.pace.check()
