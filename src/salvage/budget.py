"""The retry budget of one lane: how much wasted retry traffic its successes pay for.

Finagle's retry budget (a success deposits a share of a retry, a reserve trickles in regardless), with one
change: a retry that succeeds gets its own token back, because only wasted ones hurt the provider. So

    failed retries <= burst + ratio x successes + reserve x seconds

and a lane whose whole remaining work is retries, after an outage, is not throttled while they succeed.
(gRPC's retry throttling, gRFC A6, also counts failures only, but cannot bound what is already on its way.) An
empty budget delays; it never fails anybody.
"""

from __future__ import annotations

from math import inf, isfinite, nextafter

__all__ = ["RetryBudget"]

_EPSILON = 1e-6
"""Tokens: a millionth of a retry is rounding."""


class RetryBudget:
    """Tokens between 0 and ``burst``; one for each retry on its way."""

    __slots__ = ("_burst", "_ratio", "_reserve_per_s", "_seen_at", "_tokens")

    def __init__(self, now: float, *, ratio: float, reserve_per_s: float, burst: float) -> None:
        assert reserve_per_s > 0
        assert burst >= 1
        self._ratio = ratio
        self._reserve_per_s = reserve_per_s
        self._burst = burst
        self._tokens = burst
        self._seen_at = now

    def ready_at(self, now: float) -> float:
        """When the next retry may go: ``now`` or later."""
        self._refill(now)
        missing = 1.0 - self._tokens
        if missing <= _EPSILON:
            return now
        return max(nextafter(now, inf), now + missing / self._reserve_per_s)

    def spend(self, now: float) -> None:
        """Take the token of a retry that goes out. Only when :meth:`ready_at` says so."""
        self._refill(now)
        assert self._tokens >= 1.0 - 2 * _EPSILON, "spent without asking"
        self._tokens = max(0.0, self._tokens - 1.0)

    def refund(self, now: float) -> None:
        """Give the token back: the retry succeeded, or never reached the provider."""
        self._add(1.0, now)

    def deposit(self, now: float) -> None:
        """Credit any success on the lane, first try or not."""
        if self._tokens < self._burst:  # a full budget stays full, and whoever takes from it looks at the time first
            self._add(self._ratio, now)

    def check(self) -> None:
        """Assert the invariants."""
        assert isfinite(self._tokens)
        assert 0.0 <= self._tokens <= self._burst

    def _add(self, tokens: float, now: float) -> None:
        self._refill(now)
        self._tokens = min(self._burst, self._tokens + tokens)

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._seen_at)
        self._seen_at = max(self._seen_at, now)
        self._tokens = min(self._burst, self._tokens + elapsed * self._reserve_per_s)
