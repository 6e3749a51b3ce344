"""The cooldown: hints, backoffs, blocks from outside, canaries; and the traps that it must not fall into."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from headgate.admission.cooldown import Cooldown


def cooldown(cap_s: float = 600.0) -> Cooldown:
    return Cooldown(rng=Random(1), cap_s=cap_s)


def test_without_a_block_nothing_is_held() -> None:
    idle = cooldown()
    assert idle.allowance(0.0, 500, 8) == inf
    assert idle.next_tick(0.0, 500, 8) == inf
    assert not idle.sent(0.0)
    assert idle.blocked_until == -inf


def test_t01_shrinking_cooldown() -> None:
    """Retry-After 60 s, then a 429 with 1 s of the same burst: the block became 1 s."""
    scope = cooldown()
    scope.hint(0.0, 60.0)
    until = scope.blocked_until
    assert 60.0 <= until <= 61.0
    scope.hint(0.1, 1.0)
    scope.backoff(0.2, 3, rate=False)
    scope.block(5.0, 0.3)
    assert scope.blocked_until == until
    assert scope.allowance(59.9, 0, 8) == 0


@pytest.mark.parametrize("hint_s", [61.0, 90.0, 300.0, 600.0])
def test_t19_retry_after_ceiling(hint_s: float) -> None:
    """A hint over 60 s was ignored and the provider hit again within 8 s."""
    scope = cooldown()
    assert not scope.hint(0.0, hint_s)
    assert scope.allowance(hint_s - 0.1, 0, 8) == 0
    assert scope.next_tick(1.0, 0, 8) == scope.blocked_until
    assert scope.exceeded == 0


def test_t19_what_exceeds_the_cap_holds_for_the_cap_and_is_reported() -> None:
    scope = cooldown()
    assert scope.hint(0.0, 7200.0)
    assert 600.0 <= scope.blocked_until <= 601.0
    assert scope.exceeded == 1
    assert scope.longest_hint_s == 7200.0


def test_t20_hint_as_a_floor_over_a_huge_default() -> None:
    """One 429 with "retry in 2 s" idled the scope for 5 minutes."""
    scope = cooldown()
    scope.hint(0.0, 2.0)
    assert 2.0 <= scope.blocked_until <= 2.2
    assert scope.allowance(2.2, 0, 8) >= 1


def test_t21_all_at_once() -> None:
    """Cooldown over: the whole limit reopened in one tick and earned the next burst."""
    scope = cooldown()
    scope.hint(0.0, 10.0)
    opens = scope.blocked_until
    allowed = [scope.allowance(opens + 0.25 * quarter, 5, 64) for quarter in range(7)]
    assert allowed == [6, 7, 9, 13, 21, 37, inf]


def test_t21_also_when_nobody_looked_for_an_hour() -> None:
    scope = cooldown()
    scope.hint(0.0, 10.0)
    assert scope.allowance(3600.0, 0, 64) == 1
    assert scope.allowance(3600.25, 1, 64) == 2


def test_nothing_that_is_not_above_zero_is_a_hint() -> None:
    scope = cooldown()
    for seconds in (0.0, -5.0, float("nan")):
        assert not scope.hint(0.0, seconds)
    assert scope.blocked_until == -inf


def test_clients_that_were_told_the_same_come_back_spread() -> None:
    ends: list[float] = []
    for seed in range(40):
        scope = Cooldown(rng=Random(seed))
        scope.hint(0.0, 30.0)
        ends.append(scope.blocked_until)
    assert max(ends) - min(ends) > 0.7
    assert min(ends) >= 30.0
    assert max(ends) <= 31.0


def test_a_backoff_ends_in_one_canary() -> None:
    scope = cooldown()
    scope.backoff(0.0, 3, rate=False)
    assert 0.25 <= scope.blocked_until <= 0.75
    now = scope.blocked_until
    assert scope.allowance(now, 20, 64) == 21
    assert scope.sent(now, 1.0)
    assert scope.allowance(now, 21, 64) == 0
    assert scope.next_tick(now, 21, 64) == now + 1.0
    assert scope.allowance(now + 1.0, 21, 64) == 22, "silence is survival"
    assert not scope.sent(now + 1.0, 1.0)


def test_a_canary_that_ends_too_late_says_nothing() -> None:
    scope = cooldown()
    scope.backoff(0.0, 3, rate=False)
    first = scope.blocked_until
    scope.allowance(first, 0, 64)
    assert scope.sent(first)
    scope.allowance(first + 2.0, 1, 64)
    scope.backoff(first + 3.0, 3, rate=False)
    second = scope.blocked_until
    scope.allowance(second, 1, 64)
    assert scope.sent(second)
    scope.survived(second + 0.1, first)
    assert scope.allowance(second + 0.1, 2, 64) == 0, "the canary of the earlier block spoke for the later"
    scope.survived(second + 0.1, second)
    assert scope.allowance(second + 0.1, 1, 64) == 2


def test_a_rejected_canary_with_a_hint_waits_for_the_hint_then_sends_another() -> None:
    scope = cooldown()
    scope.backoff(0.0, 3, rate=False)
    now = scope.blocked_until
    scope.allowance(now, 0, 64)
    assert scope.sent(now)
    assert scope.rejected(now + 0.1, now, rate=False, retry_after_s=1000.0)
    assert scope.blocked_until >= now + 600.0
    now = scope.blocked_until
    assert scope.allowance(now, 0, 64) == 1
    assert scope.sent(now)


def test_the_first_rate_rejection_needs_no_backoff_the_second_does() -> None:
    scope = cooldown()
    scope.sent(0.0)
    scope.sent(0.01)
    assert not scope.rate_rejected(0.1, 0.0)
    assert not scope.rate_rejected(0.11, 0.01), "one burst counts once"
    assert scope.blocked_until == -inf
    scope.sent(0.2)
    assert scope.rate_rejected(0.3, 0.2)
    assert 0.25 <= scope.blocked_until - 0.3 <= 0.75


def test_a_survivor_breaks_a_row_of_rate_rejections() -> None:
    scope = cooldown()
    for at in range(0, 50, 5):
        scope.sent(float(at), 1.0)
        assert not scope.rate_rejected(at + 4.0, at + 3.9)
    assert scope.blocked_until == -inf


def test_a_block_from_outside_ends_early_only_by_unblock_and_in_a_canary() -> None:
    scope = cooldown()
    scope.block(inf, 0.0)
    assert scope.allowance(1e9, 0, 8) == 0
    assert scope.next_tick(1.0, 0, 8) == inf
    scope.unblock(10.0)
    assert scope.allowance(10.0, 0, 8) == 1
    assert scope.sent(10.0)
    assert scope.allowance(10.0, 1, 8) == 0


def test_unblock_leaves_what_the_provider_asked_for() -> None:
    scope = cooldown()
    scope.hint(0.0, 30.0)
    until = scope.blocked_until
    scope.block(100.0, 1.0)
    assert scope.blocked_until == 100.0
    scope.unblock(2.0)
    assert scope.blocked_until == until
    scope.unblock(3.0)
    assert scope.blocked_until == until


def test_without_any_limit_a_restart_ends_too() -> None:
    scope = cooldown()
    scope.hint(0.0, 1.0)
    now = scope.blocked_until
    assert scope.allowance(now, 0, inf) == 1
    assert scope.allowance(now + 5.0, 0, inf) == inf
    assert scope.next_tick(now + 5.0, 0, inf) == inf
