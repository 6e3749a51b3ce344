"""The rate limiter, one decision at a time: where its rate comes from, and what each answer does to it."""

from __future__ import annotations

import random
from math import inf

import pytest

from headgate.admission.rate import LearnedSnapshot, RateLimiter, RateMode, RateOrigin, RateStamp
from headgate.admission.rate_window import FixedWindow
from headgate.values import RateWindow


def limiter_of(per_minute: float | None = None, *, share: float = 1.0) -> RateLimiter:
    return RateLimiter(configured_per_minute=per_minute, rng=random.Random(0), share=share)


def send(limiter: RateLimiter, start: float, seconds: float, per_second: float, cost: float = 1.0) -> list[RateStamp]:
    stamps: list[RateStamp] = []
    for step in range(round(seconds * per_second)):
        now = start + step / per_second
        assert limiter.ready_at(cost, now) <= now
        stamps.append(limiter.take(cost, now))
    return stamps


def reject(limiter: RateLimiter, stamp: RateStamp, now: float, *, canary: bool = False) -> bool:
    limiter.settle(stamp, 0.0, now)
    return limiter.rejected(stamp, now, canary=canary)


def test_an_unknown_rate_is_unlimited() -> None:
    limiter = limiter_of()
    assert limiter.rate_per_minute == inf
    assert limiter.origin is RateOrigin.UNKNOWN
    assert limiter.fits(1e12, 0.0)
    assert limiter.ready_at(1e12, 3.0) <= 3.0


def test_t07_a_request_above_a_configured_minute_is_too_large() -> None:
    """A7: it could never go, and elsewhere it waited for ever."""
    limiter = limiter_of(600.0)
    assert limiter.fits(600.0, 0.0)
    assert not limiter.fits(601.0, 0.0)
    limiter.configure(1200.0, 1.0)
    assert limiter.fits(601.0, 1.0)


def test_t07_a_limit_stated_several_times_alike_bounds_a_request_too() -> None:
    """One odd statement must not turn requests away for good; a repeated one is the provider's own bound."""
    limiter = limiter_of()
    for now in (1.0, 2.0):
        limiter.observed(RateWindow(1000.0, 900.0), limiter.take(1.0, now), now)
        assert limiter.fits(1001.0, now)
    limiter.observed(RateWindow(1000.0, 900.0), limiter.take(1.0, 3.0), 3.0)
    assert not limiter.fits(1001.0, 3.0)
    assert limiter.fits(1000.0, 3.0)


def test_t09_a_failed_attempt_gets_back_what_was_not_spent() -> None:
    """A7: whoever waits behind a failed large request waits as if it had never been sent."""
    limiter = limiter_of(6000.0)
    stamp = limiter.take(3000.0, 0.0)
    assert limiter.ready_at(1.0, 0.0) > 29.0
    limiter.settle(stamp, 0.0, 0.5)
    assert limiter.ready_at(1.0, 0.5) <= 0.5


def test_a_larger_bill_than_estimated_is_owed() -> None:
    limiter = limiter_of(6000.0)
    stamp = limiter.take(100.0, 0.0)
    limiter.settle(stamp, 1100.0, 5.0)
    assert limiter.ready_at(100.0, 5.0) == pytest.approx(15.0)


def test_a_rejected_request_that_counts_is_settled_with_its_cost() -> None:
    """Whether a rejected attempt spent anything is decided by what it is settled with, and nowhere else."""
    counting, refunding = limiter_of(), limiter_of()
    for limiter, spent in ((counting, 1.0), (refunding, 0.0)):
        stamps = send(limiter, 0.0, 20.0, 10.0)
        for stamp in stamps[-50:]:
            limiter.settle(stamp, spent, 20.0)
        hit = limiter.take(1.0, 20.0)
        limiter.settle(hit, spent, 20.1)
        limiter.rejected(hit, 20.1, canary=False)
    assert counting.rate_per_minute == pytest.approx(0.98 * 600.0, rel=0.02)
    assert refunding.rate_per_minute == pytest.approx(0.98 * 300.0, rel=0.03)


def test_a_canary_never_lowers_the_rate() -> None:
    limiter = limiter_of()
    send(limiter, 0.0, 20.0, 10.0)
    assert not reject(limiter, limiter.take(1.0, 20.0), 20.1, canary=True)
    assert limiter.rate_per_minute == inf


def test_a_rejection_while_holding_lowers_the_rate_a_little() -> None:
    limiter = limiter_of()
    send(limiter, 0.0, 20.0, 10.0)
    reject(limiter, limiter.take(1.0, 20.0), 20.1)
    held = limiter.rate_per_minute
    now = 20.2
    while now < 26.0:
        now = max(now, limiter.ready_at(1.0, now))
        limiter.take(1.0, now)
    now = max(now, limiter.ready_at(1.0, now))
    assert reject(limiter, limiter.take(1.0, now), now + 0.1)
    assert 0.95 * held <= limiter.rate_per_minute <= 0.97 * held


def test_too_little_to_measure_by_lowers_the_rate_by_three_percent() -> None:
    """A few accepted between two rejections measure nothing; each rejection still counts."""
    limiter = limiter_of()
    send(limiter, 0.0, 20.0, 10.0)
    reject(limiter, limiter.take(1.0, 20.0), 20.01)
    held = limiter.rate_per_minute
    for now in (20.2, 20.4):
        limiter.take(1.0, now)
    reject(limiter, limiter.take(1.0, 20.6), 20.61)
    assert limiter.rate_per_minute == pytest.approx(0.97 * held)


def test_an_episode_in_which_all_is_refused_measures_no_rate() -> None:
    """A provider that refuses everything for a while says nothing about its rate: afterwards it is what it was."""
    limiter = limiter_of()
    send(limiter, 0.0, 20.0, 10.0)
    reject(limiter, limiter.take(1.0, 20.0), 20.01)
    held = limiter.rate_per_minute
    for second in range(21, 40):
        assert reject(limiter, limiter.take(1.0, second), second + 0.05)
    assert limiter.rate_per_minute == held


def test_a_held_rate_is_probed_in_the_end_and_slowly_at_first() -> None:
    limiter = limiter_of()
    send(limiter, 0.0, 20.0, 10.0)
    reject(limiter, limiter.take(1.0, 20.0), 20.1)
    held = limiter.rate_per_minute
    assert limiter.snapshot(20.1).mode is RateMode.HOLD
    probe_at = limiter.next_tick(20.1)
    assert 7.5 <= probe_at - 20.1 <= 12.5
    now = 20.2
    while now < probe_at + 20.0:
        now = max(now, limiter.ready_at(1.0, now))
        limiter.take(1.0, now)
    assert limiter.snapshot(now).mode is RateMode.PROBE
    assert limiter.rate_per_minute == pytest.approx(held * 1.04 * (1 + (20 / 120) ** 2), rel=0.01)


def test_after_a_long_block_the_rate_is_what_the_whole_window_took() -> None:
    """A fixed window of one minute: 40 at once, then nothing until the next: the rate is 40 a minute."""
    limiter = limiter_of()
    for step in range(40):
        limiter.take(1.0, step * 0.05)
    assert reject(limiter, limiter.take(1.0, 2.0), 2.1)
    limiter.blocked(2.1, 60.0)
    limiter.take(1.0, 60.0)
    limiter.unblocked(61.0)
    assert limiter.rate_per_minute == pytest.approx(0.995 * 40.0, rel=0.01)


def test_when_the_gate_tells_of_the_end_of_a_block_does_not_matter() -> None:
    """The first answer after a block may take its time; what was sent meanwhile is not lost from the measurement."""
    rates: list[float] = []
    for told_after_s in (0.5, 20.0):
        limiter = limiter_of()
        for step in range(40):
            limiter.take(1.0, step * 0.05)
        reject(limiter, limiter.take(1.0, 2.0), 2.1)
        limiter.blocked(2.1, 60.0)
        limiter.take(1.0, 60.0)
        limiter.unblocked(60.0 + told_after_s)
        rates.append(limiter.rate_per_minute)
    assert rates[0] == rates[1]


def test_who_had_nothing_to_send_for_an_hour_after_a_block_measured_no_window() -> None:
    """The hour was taken for a part of the window: 40 a minute became less than one."""
    limiter = limiter_of()
    for step in range(40):
        limiter.take(1.0, step * 1.5)
    assert reject(limiter, limiter.take(1.0, 60.0), 60.1)
    held = limiter.rate_per_minute
    limiter.blocked(60.1, 90.0)
    limiter.take(1.0, 3690.0)
    limiter.unblocked(3691.0)
    assert limiter.rate_per_minute >= held


def test_no_guess_stops_a_limiter_for_good() -> None:
    """A rejection right after a pause measures next to nothing; a request a minute still goes out."""
    limiter = limiter_of()
    reject(limiter, limiter.take(5000.0, 100.0), 100.1)
    for step in range(40):
        now = 200.0 + step
        reject(limiter, limiter.take(5000.0, now), now + 0.1)
        assert limiter.ready_at(5000.0, now + 0.1) <= now + 130.0


def test_a_small_cost_rejected_does_not_shut_out_the_usual_ones() -> None:
    """One token a second measured after a pause says little where requests cost thousands."""
    limiter = limiter_of()
    send(limiter, 0.0, 10.0, 2.0, cost=5000.0)
    reject(limiter, limiter.take(1.0, 100.0), 100.1)
    limiter.take(5000.0, limiter.ready_at(5000.0, 100.1))
    assert limiter.ready_at(5000.0, 170.0) <= 170.0


def test_headers_pull_the_rate_to_what_is_left() -> None:
    """A8: a full bucket may be spent faster than it refills, an empty one is refilled first."""
    full, empty = limiter_of(), limiter_of()
    full.observed(RateWindow(600.0, 600.0), full.take(1.0, 0.0), 0.0)
    empty.observed(RateWindow(600.0, 0.0), empty.take(1.0, 0.0), 0.0)
    assert full.rate_per_minute == pytest.approx(60.0 * (10.0 + 59.4))
    assert empty.rate_per_minute == pytest.approx(60.0 * (10.0 - 0.6))
    assert full.origin is RateOrigin.STATED


def test_a_cost_waits_until_the_provider_should_have_it() -> None:
    """A rejected large request is a wasted one: with 50 tokens left of 6,000 a minute, 500 are not sent at once."""
    limiter = limiter_of()
    limiter.observed(RateWindow(6000.0, 50.0), limiter.take(1.0, 0.0), 0.0)
    assert limiter.ready_at(1.0, 0.5) <= 0.5
    now = 0.5
    while limiter.ready_at(500.0, now) > now:
        now = limiter.ready_at(500.0, now)
    assert 4.5 <= now <= 15.0


def test_only_a_share_of_a_stated_limit_is_used() -> None:
    whole, half = limiter_of(), limiter_of(share=0.5)
    for limiter in (whole, half):
        limiter.observed(RateWindow(600.0, 300.0), limiter.take(1.0, 0.0), 0.0)
    assert half.rate_per_minute == pytest.approx(whole.rate_per_minute / 2.0)


def test_a_provider_that_stops_stating_its_limit_is_not_believed_for_ever() -> None:
    limiter = limiter_of()
    limiter.observed(RateWindow(600.0, 0.0), limiter.take(1.0, 0.0), 0.0)
    assert limiter.rate_per_minute < 600.0
    limiter.ready_at(1.0, 1000.0)
    assert limiter.rate_per_minute == inf


def test_answers_slower_than_the_window_do_not_starve_the_rate() -> None:
    """With 60 s windows and 120 s answers, "own sends since" is always more than the window holds."""
    limiter = limiter_of()
    limiter.observed(RateWindow(600.0, 599.0, 0.1), limiter.take(1.0, 0.0), 0.0)
    level, at = 599.0, 0.0
    pending: list[tuple[float, RateStamp, float]] = []
    now, sent = 0.0, 0
    while now < 600.0:
        now = max(now, limiter.ready_at(1.0, now))
        while pending and pending[0][0] <= now:
            _, stamp, left = pending.pop(0)
            limiter.observed(RateWindow(600.0, left, None), stamp, now)
        if limiter.ready_at(1.0, now) > now:
            continue
        level, at = min(600.0, level + (now - at) * 10.0) - 1.0, now
        assert level >= 0.0
        pending.append((now + 120.0, limiter.take(1.0, now), float(int(level))))
        sent += 1
    assert sent >= 0.97 * 6000


def test_a_rejection_that_the_statement_explains_is_not_learned_from() -> None:
    limiter = limiter_of()
    limiter.observed(RateWindow(600.0, 5.0), limiter.take(1.0, 0.0), 0.0)
    reject(limiter, limiter.take(1.0, 0.1), 0.2)
    assert limiter.snapshot(0.2).mode is RateMode.OPEN
    assert limiter.rate_per_minute <= 600.0


def test_a_rejection_against_the_statement_is_learned_from() -> None:
    """The provider says that half is left, and rejects for the rate: some other limit is smaller."""
    limiter = limiter_of()
    limiter.observed(RateWindow(6000.0, 3000.0), limiter.take(1.0, 0.0), 0.0)
    send(limiter, 0.1, 20.0, 5.0)
    reject(limiter, limiter.take(1.0, 20.2), 20.3)
    assert limiter.snapshot(20.3).mode is RateMode.HOLD
    assert limiter.rate_per_minute == pytest.approx(0.98 * 300.0, rel=0.03)


def test_what_was_learned_survives_a_restart() -> None:
    old = limiter_of()
    send(old, 0.0, 20.0, 10.0)
    reject(old, old.take(1.0, 20.0), 20.1)
    new = limiter_of()
    new.restore(old.learned(), 5.0)
    assert new.rate_per_minute == old.rate_per_minute
    assert new.next_tick(5.0) < 20.0


@pytest.mark.parametrize("kept", [LearnedSnapshot(float("nan")), LearnedSnapshot(-1.0), LearnedSnapshot(inf)])
def test_a_damaged_record_is_not_restored(kept: LearnedSnapshot) -> None:
    limiter = limiter_of()
    limiter.restore(kept, 0.0)
    limiter.check()
    assert limiter.rate_per_minute == inf


def test_windows_that_let_nothing_through_show_no_quota() -> None:
    """Requests whose tokens nobody knew cost nothing, and two times nothing is no quota that repeats."""
    window = FixedWindow()
    assert not window.repeats(0.0)
    assert not window.repeats(0.0)
    assert not window.repeats(40.0)
    assert window.repeats(40.5)


def test_a_quota_that_fell_is_asked_for_again_soon() -> None:
    """It had repeated, and was held for ten minutes; what took half of it away may give it back any moment."""
    limiter = limiter_of()
    limiter.restore(LearnedSnapshot(base=10.0, hold_s=600.0), 0.0)
    stamps = send(limiter, 1.0, 30.0, 4.0)
    assert reject(limiter, stamps[-1], 31.0)
    assert limiter.rate_per_minute < 480.0
    assert limiter.learned().hold_s == 10.0
