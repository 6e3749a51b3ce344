"""One served model: its limits as they are now, its quotas, and the script that changes them.

Decides whether a request may take a slot, all limits or nothing, and for how long a refused one should wait.
Does not know clients, contents or HTTP.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from .accounts import Account, Contents
from .quota import Bucket, FixedWindow, Quota
from .values import Fault, ProviderLimit, QuotaState, Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .draws import Draws
    from .spec import Capacity, ModelSpec

__all__ = ["Cost", "Refusal", "ServedModel"]


class Cost(NamedTuple):
    """What a request takes from the token quotas."""

    input_tokens: int
    output_tokens: int


class Refusal(NamedTuple):
    """Why a request is refused now, and after how many seconds it may fit (infinity: never)."""

    limit: ProviderLimit
    wait_s: float


class ServedModel:
    """The state of one model. Scripts, quotas and the account begin with :meth:`start`."""

    def __init__(self, name: str, spec: ModelSpec, remember: int) -> None:
        self.name = name
        self.capacity: Capacity = spec
        self.contents = Contents(remember)
        self.account = Account(0.0)
        self._script = spec.script
        self._next_change = 0
        self._start_s = math.inf
        self._quotas: dict[ProviderLimit, Quota] = {}
        self._shares = spec.faults.shares()

    def start(self, now: float) -> None:
        """Start the clock of the script, with full quotas and an empty account."""
        self._start_s = now
        self.account = Account(now)
        self._quotas.clear()
        self._adopt(self.capacity, now)

    def advance(self, now: float) -> None:
        """Carry the account to ``now``, through every scripted change on the way."""
        while (at := self.next_tick()) <= now:
            self.account.advance(at, self.capacity.concurrency)
            self._adopt(self.capacity.changed_by(self._script[self._next_change]), at)
            self._next_change += 1
        self.account.advance(now, self.capacity.concurrency)

    def next_tick(self) -> float:
        """Return the time of the next scripted change, or infinity."""
        if self._next_change >= len(self._script):
            return math.inf
        return self._start_s + self._script[self._next_change].at_s

    def change(self, change: Capacity, now: float) -> None:
        """Take over the given fields of ``change`` now."""
        self.advance(now)
        self._adopt(self.capacity.changed_by(change), now)

    def reset_account(self, now: float) -> None:
        """Start the counts again; requests in flight are carried over."""
        self.advance(now)
        self.account = Account(now, self.account.in_flight)
        self.contents = Contents(self.contents.remember)

    def refuse(self, cost: Cost, now: float) -> Refusal | None:
        """Return why this request cannot be taken now, or take its cost and return None."""
        refusal = self._obstacle(cost, now)
        if refusal is None:
            for limit, quota in self._quotas.items():
                quota.take(_charge(limit, cost), now)
        elif self.capacity.count_rejected and ProviderLimit.REQUESTS in self._quotas:
            self._quotas[ProviderLimit.REQUESTS].take(1, now)
        return refusal

    def fault(self, content: str, draws: Draws, sticky: Draws) -> Fault | None:
        """Return what goes wrong with this attempt; ``sticky`` holds the draws of the first one."""
        faults = self.capacity.faults
        for text, fault in faults.poison.items():
            if text in content:
                return fault
        threshold, drawn = 0.0, sticky.fault if faults.sticky else draws.fault
        for fault, share in self._shares:
            threshold += share
            if drawn < threshold:
                return fault
        return None

    def states(self, now: float) -> Mapping[ProviderLimit, QuotaState]:
        """Return what is left of each rate quota."""
        return {limit: quota.state(now) for limit, quota in self._quotas.items()}

    def check(self) -> None:
        """Assert the invariants of the account and of every quota."""
        self.account.check()
        for quota in self._quotas.values():
            quota.check()

    def _obstacle(self, cost: Cost, now: float) -> Refusal | None:
        capacity = self.capacity
        if capacity.reject is not None:
            until = self.next_tick()
            return Refusal(ProviderLimit.EVERYTHING, until - now if until < math.inf else 1.0)
        if capacity.concurrency is not None and self.account.in_flight >= capacity.concurrency:
            return Refusal(ProviderLimit.CONCURRENCY, self._next_slot_s())
        for limit, quota in self._quotas.items():
            wait_s = quota.wait_s(_charge(limit, cost), now)
            if wait_s > 0:
                return Refusal(limit, wait_s)
        return None

    def _next_slot_s(self) -> float:
        """Return the mean time until one of the slots in use comes free."""
        return self.capacity.latency.mean_s / max(1, self.account.in_flight)

    def _adopt(self, capacity: Capacity, now: float) -> None:
        self.capacity = capacity
        self._shares = capacity.faults.shares()
        wanted = _rates(capacity)
        for limit in [limit for limit in self._quotas if limit not in wanted]:
            del self._quotas[limit]
        for limit, (per_minute, burst) in wanted.items():
            self._quotas[limit] = self._tuned(self._quotas.get(limit), per_minute, burst, now)

    def _tuned(self, quota: Quota | None, per_minute: float, burst: float, now: float) -> Quota:
        """Return a quota of this size; one of the same kind keeps what was used of it."""
        if self.capacity.window is Window.FIXED:
            phase_s = self._start_s + self.capacity.window_phase_s
            if not isinstance(quota, FixedWindow):
                return FixedWindow(per_minute, phase_s)
            quota.retune(per_minute, phase_s)
            return quota
        if not isinstance(quota, Bucket):
            return Bucket(per_minute, burst, now)
        quota.retune(per_minute, burst, now)
        return quota


def _rates(capacity: Capacity) -> dict[ProviderLimit, tuple[float, float]]:
    """Return rate per minute and bucket size of every limit that is set."""
    every = (
        (ProviderLimit.REQUESTS, capacity.requests_per_minute, capacity.request_burst),
        (ProviderLimit.TOKENS, capacity.tokens_per_minute, capacity.token_burst),
        (ProviderLimit.INPUT_TOKENS, capacity.input_tokens_per_minute, capacity.token_burst),
        (ProviderLimit.OUTPUT_TOKENS, capacity.output_tokens_per_minute, capacity.token_burst),
    )
    return {limit: (rate, rate if burst is None else burst) for limit, rate, burst in every if rate is not None}


def _charge(limit: ProviderLimit, cost: Cost) -> float:
    match limit:
        case ProviderLimit.REQUESTS:
            return 1
        case ProviderLimit.INPUT_TOKENS:
            return cost.input_tokens
        case ProviderLimit.OUTPUT_TOKENS:
            return cost.output_tokens
        case _:
            return cost.input_tokens + cost.output_tokens
