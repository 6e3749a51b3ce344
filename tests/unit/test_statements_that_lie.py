"""Numbers from providers that cannot be meant, or were meant for somebody else: one of them must not stop everything.

All found by ``tests/properties/test_bad_providers.py``; a minimal case of each.
"""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from headgate.admission.gate import Gate
from headgate.admission.rate import RateLimiter
from headgate.admission.rate_stated import PATIENCE_MAX_S, PATIENCE_S, STALE_AT_LEAST_S, STALE_AT_MOST_S
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Lease, ReleaseResult, Request
from headgate.values import Outcome, RateWindow, ResourceKey, Usage

DAY_S = 86_400.0
MODEL = ResourceKey.parse("p/m")


def limiter_of(per_minute: float | None = None) -> RateLimiter:
    return RateLimiter(configured_per_minute=per_minute, rng=Random(1))


def waits_s(limiter: RateLimiter, cost: float, now: float) -> float:
    """How long a cost waits if somebody asks again whenever the limiter says so."""
    began = now
    for _ in range(1000):
        at = limiter.ready_at(cost, now)
        if at <= now:
            return now - began
        now = at
    raise AssertionError("it never comes to an end")


@pytest.mark.parametrize("remaining", [0.0, 1.0])
def test_one_statement_of_a_limit_of_one_a_day_does_not_stop_everything_for_days(remaining: float) -> None:
    """Elsewhere one answer with another account's headers stopped a resource for twenty days."""
    limiter = limiter_of()
    limiter.observed(RateWindow(1.0, remaining, DAY_S, DAY_S), limiter.take(1.0, 10.0), 10.5)
    now = 10.5
    for _ in range(3):
        waited_s = waits_s(limiter, 1.0, now)
        assert waited_s <= PATIENCE_S + 1.0
        now += waited_s
        limiter.take(1.0, now)


def test_a_statement_about_a_day_lapses_within_the_hour() -> None:
    """Whoever stops stating is not believed for three days."""
    limiter = limiter_of()
    limiter.observed(RateWindow(1000.0, 0.0, DAY_S, DAY_S), limiter.take(1.0, 10.0), 10.5)
    now, sends = 10.5, 0
    while now < 10.5 + STALE_AT_MOST_S:
        now += waits_s(limiter, 1.0, now)
        limiter.take(1.0, now)
        sends += 1
        assert sends < 1000
    assert waits_s(limiter, 1.0, now) <= PATIENCE_S
    assert limiter.rate_per_minute == inf


def test_who_waits_when_a_statement_lapses_is_told_to_ask_at_that_moment() -> None:
    """A10: the next review came up to half a minute later, and meanwhile nothing kept the request any more."""
    limiter = limiter_of()
    limiter.observed(RateWindow(60.0, 60.0), limiter.take(1.0, 0.0), 0.0)
    limiter.take(60.0, STALE_AT_LEAST_S - 1.0)
    asked = STALE_AT_LEAST_S - 0.5
    assert asked < limiter.ready_at(60.0, asked) <= STALE_AT_LEAST_S
    assert limiter.ready_at(60.0, STALE_AT_LEAST_S) <= STALE_AT_LEAST_S


def test_a_bill_beyond_all_reason_is_owed_for_a_minute() -> None:
    """A miscounted usage of a billion tokens was a debt of two years."""
    limiter = limiter_of(1000.0)
    limiter.settle(limiter.take(10.0, 0.0), 1e9, 1.0)
    assert waits_s(limiter, 10.0, 1.0) == pytest.approx(60.0, abs=1.0)


def test_a_bill_beyond_all_reason_does_not_outlast_the_statement_that_makes_it_count() -> None:
    """It was looked at again only after years: the review of a long wait was a share of the wait."""
    limiter = limiter_of()
    stamp = limiter.take(10.0, 0.0)
    limiter.observed(RateWindow(1000.0, 1000.0), stamp, 0.1)
    limiter.settle(limiter.take(10.0, 1.0), 1e9, 2.0)
    assert waits_s(limiter, 10.0, 2.0) <= PATIENCE_S


def test_a_stated_limit_that_lapsed_turns_no_request_away() -> None:
    """Every request was too large for it, so none went out, so no answer ever said otherwise."""
    limiter = limiter_of()
    for now in (1.0, 2.0, 3.0):
        limiter.observed(RateWindow(3.0, 3.0), limiter.take(1.0, now), now)
    assert not limiter.fits(10.0, 3.0)
    assert limiter.fits(10.0, 3.0 + PATIENCE_S + 1.0)  # one goes out, and its answer settles it


@pytest.mark.parametrize("usage", [Usage(-5, 0), Usage(0, -(10**30)), Usage(10**400, 0)])
def test_a_usage_that_cannot_be_meant_was_not_reported(usage: Usage) -> None:
    """A2: a release never raises. These raised from it, with the lease half given back."""
    gate = Gate(rng=Random(1))
    gate.register(MODEL, {"p/m": ScopeLimits(maximum=2, tokens_per_minute=1000.0)}, 0.0)
    for now, reported in ((10.0, True), (100.0, False)):
        lease = gate.try_acquire(Request(MODEL, input_tokens=10), now)
        assert isinstance(lease, Lease)
        if reported:
            gate.report(lease, now + 1.0, usage=usage)
            assert gate.release(lease, Outcome.SUCCESS, now + 1.0) is ReleaseResult.RELEASED
        else:
            assert gate.release(lease, Outcome.SUCCESS, now + 1.0, usage=usage) is ReleaseResult.RELEASED
    gate.check()
    assert gate.pressure(MODEL, 102.0).in_flight == 0


def test_a_provider_that_stops_stating_is_asked_again_within_minutes() -> None:
    """Three answers without the statement in two minutes, not an hour at one request in ten minutes."""
    limiter = limiter_of()
    limiter.observed(RateWindow(1.0, 0.0, DAY_S, DAY_S), limiter.take(1.0, 10.0), 10.5)
    now = 10.5
    for _ in range(3):
        now += waits_s(limiter, 1.0, now)
        limiter.unstated(limiter.take(1.0, now), now + 0.5)
    assert waits_s(limiter, 1.0, now + 0.5) == 0.0
    assert now <= 10.5 + 4 * PATIENCE_S


def test_a_quota_that_is_used_up_is_asked_ever_more_rarely() -> None:
    """Believing less in statements must not cost a rejection a minute for the rest of the day."""
    limiter = limiter_of()
    now = 10.0
    waits: list[float] = []
    for _ in range(12):
        limiter.observed(RateWindow(200.0, 0.0, DAY_S, DAY_S), limiter.take(1.0, now), now + 0.5)
        waits.append(waits_s(limiter, 1.0, now + 0.5))
        now += 0.5 + waits[-1]
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(PATIENCE_MAX_S, abs=1.0)
    assert sum(waits[:5]) >= 1000.0


def test_a_window_that_was_guessed_wrong_is_found_out() -> None:
    """Every rejection was explained by "nothing left", and the refill was believed for ever: 57 % were rejected."""
    limiter = limiter_of()
    left, now, rejected = 1.0, 0.0, 0
    for _ in range(400):
        waited_s = waits_s(limiter, 1.0, now) + 0.01
        now, left = now + waited_s, min(60.0, left + waited_s)  # one a second, stated as 60 a second
        stamp = limiter.take(1.0, now)
        accepted = left >= 1.0
        left -= accepted
        limiter.observed(RateWindow(60.0, float(int(left)), 1.0, 1.0), stamp, now)
        if not accepted:
            rejected += now > 60.0
            limiter.settle(stamp, 0.0, now)
            limiter.rejected(stamp, now, canary=False)
    assert now > 250.0
    assert rejected < 20
