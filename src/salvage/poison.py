"""Is it the task or the lane? When a task that keeps failing is called poison.

Pure functions of what is known of the task (:class:`.history.History`) and of its lane
(:class:`.breaker.Breaker`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .breaker import Breaker
    from .history import History
    from .policy import SalvagePolicy

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

_ROUNDING = 1e-9

__all__ = ["is_alone_and_failing", "is_used_up"]


def is_used_up(history: History, breaker: Breaker[K], policy: SalvagePolicy) -> bool:
    """Whether the fault that just happened was the task's last.

    All faults before it are charged. This one counts too, unless others have begun to fail in the same spell:
    then it may turn out to be an outage, and the next one decides.
    """
    blame = history.blame(breaker)
    if breaker.is_open or blame <= 0:
        return False
    this = blame if breaker.run <= 1 else 0.0
    return history.charged + this >= policy.max_attempts - _ROUNDING


def is_alone_and_failing(history: History, breaker: Breaker[K], policy: SalvagePolicy, now: float) -> bool:
    """Whether a task that failed while others succeeded is now left alone, and has failed for long since.

    There is nobody to compare with any more. What speaks against an outage: at least one fault is charged to
    the task, the tasks without a record that fail beside it are few next to those that succeeded, and it
    lasts longer than outages do. Each further charge halves the time, as it halves what is left to explain. A
    task to which nothing is charged is never called poison: nothing tells it from one that met an outage.
    """
    if breaker.is_open or history.charged <= 0 or history.faults < policy.max_attempts:
        return False
    span_s = policy.lone_span_s * min(1.0, 2.0 ** (1.0 - history.charged))
    failing_since = max(history.first_fault_at, breaker.spell_began_at)
    few = breaker.run <= max(1.0, policy.lone_share * breaker.successes)
    return few and now - failing_since >= span_s
