"""Bounds for a client that is told nothing: what the work needs at least, and what perfect knowledge makes of it.

Both come from the provider model that the server serves, so latencies and faults are those of the run. The *bound* is
work over capacity. The *oracle* sends a request in the very moment in which the provider would accept it, rows in
order, a failed attempt again at once, without a network or CPU. It is slower than the bound by its tail: while the last
slow answers are awaited, slots are empty.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from headgate.testing.provider import Accepted, Fault, ProviderModel, ProviderRequest, ProviderSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.testing.provider import ModelSpec

__all__ = ["oracle_s", "seconds_at_concurrency", "seconds_at_rate"]

FAILING: Final = frozenset({Fault.ERROR_500, Fault.OVERLOADED, Fault.RESET, Fault.MALFORMED})
STEP_S: Final = 0.001  # how finely the oracle finds the moment in which a rate has room again


def seconds_at_concurrency(work_s: float, spec: ModelSpec) -> float:
    """Return when ``work_s`` seconds of answering can be done at the earliest: every slot of the script in use."""
    capacity, at_s = spec.concurrency, 0.0
    assert capacity is not None, "a model without a concurrency limit has no such bound"
    for change in spec.script:
        assert change.concurrency is not None, "only changes of the concurrency are understood"
        done_s = capacity * (change.at_s - at_s)
        if done_s >= work_s:
            break
        work_s, at_s, capacity = work_s - done_s, change.at_s, change.concurrency
    return at_s + work_s / capacity


def seconds_at_rate(requests: int, spec: ModelSpec) -> float:
    """Return when ``requests`` can be accepted at the earliest: the burst at once, the others at the rate."""
    assert spec.requests_per_minute is not None, "a model without a rate has no such bound"
    burst = spec.requests_per_minute if spec.request_burst is None else spec.request_burst
    return max(0.0, requests - burst) * 60 / spec.requests_per_minute


def oracle_s(contents: Iterable[str], name: str, spec: ProviderSpec) -> float:
    """Return when the last of ``contents`` is answered by the model ``name`` for a client that knows everything."""
    provider = ProviderModel(spec)
    waiting = deque(contents)
    ends: list[tuple[float, int, str | None]] = []
    now = 0.0
    while waiting or ends:
        refused = False
        while waiting and not refused:
            decision = provider.begin(ProviderRequest(name, waiting[0]), now)
            refused = not isinstance(decision, Accepted)
            if isinstance(decision, Accepted):
                content = waiting.popleft()
                again = content if decision.fault in FAILING else None
                heappush(ends, (now + decision.latency_s + decision.body_s, decision.request_id, again))
        now = min(ends[0][0] if ends else now + STEP_S, now + STEP_S if refused else ends[0][0])
        while ends and ends[0][0] <= now:
            _, request_id, again = heappop(ends)
            provider.end(request_id, now)
            if again is not None:
                waiting.appendleft(again)
    return now
