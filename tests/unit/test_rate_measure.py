"""What rejections say about a quota: deep buckets and shallow ones, limits heard of late, and windows that repeat."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from headgate.admission.rate import RateLimiter, RateMode, RateStamp
from headgate.admission.rate_counts import SendCounts
from headgate.admission.rate_measure import DEEP_MARGIN, MARGIN, RateMeasure
from headgate.admission.rate_window import FixedWindow

PER_S = 10.0


def limiter_of() -> RateLimiter:
    return RateLimiter(configured_per_minute=None, rng=random.Random(0))


@dataclass
class Bucket:
    """A provider's, full at first."""

    burst: float
    per_s: float = PER_S
    at: float = 0.0
    level: float = 0.0
    rejections: int = 0
    served: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def accepts(self, cost: float, now: float) -> bool:
        self.level = min(self.burst, self.level + (now - self.at) * self.per_s)
        self.at = now
        if self.level < cost:
            self.rejections += 1
            return False
        self.level -= cost
        self.served += cost
        return True


def reject(limiter: RateLimiter, stamp: RateStamp, now: float) -> bool:
    limiter.settle(stamp, 0.0, now)
    return limiter.rejected(stamp, now, canary=False)


def ask(limiter: RateLimiter, bucket: Bucket, now: float, cost: float = 1.0) -> bool:
    """Send one request at ``now``. A rejection is told at once and taken to be about this limit."""
    stamp = limiter.take(cost, now)
    if bucket.accepts(cost, now):
        return True
    reject(limiter, stamp, now)
    return False


def drive(limiter: RateLimiter, bucket: Bucket, start: float, end: float, costs: random.Random | None = None) -> None:
    """Send as fast as the limiter allows, never more than 50 a second, and with a pause after a rejection."""
    now, cost = start, 1.0
    while now < end:
        ready = limiter.ready_at(cost, now)
        if ready > now:
            now = min(ready, now + 1.0)
            continue
        now += 0.02 if ask(limiter, bucket, now, cost) else 0.5
        cost = 1.0 if costs is None else costs.lognormvariate(-0.5, 1.0)


@pytest.mark.parametrize("burst", [10.0, 600.0])
def test_each_probe_of_a_known_quota_costs_about_one_rejection(burst: float) -> None:
    """A second's worth in the bucket, or a minute's: the latter hides the quota behind what it had saved."""
    limiter, bucket = limiter_of(), Bucket(burst)
    drive(limiter, bucket, 0.0, 600.0)
    before, served = bucket.rejections, bucket.served
    drive(limiter, bucket, 600.0, 4200.0)
    assert bucket.rejections - before <= 12
    assert bucket.served - served >= 0.98 * PER_S * 3600.0


def test_costs_that_vary_do_not_hide_the_quota_of_a_deep_bucket() -> None:
    limiter, bucket = limiter_of(), Bucket(600.0)
    costs = random.Random(7)
    drive(limiter, bucket, 0.0, 600.0, costs)
    before, served = bucket.rejections, bucket.served
    drive(limiter, bucket, 600.0, 4200.0, costs)
    assert bucket.rejections - before <= 18
    assert bucket.served - served >= 0.96 * PER_S * 3600.0


def test_a_shallow_bucket_is_measured_by_what_its_quota_let_through() -> None:
    """The probe ran above the quota for as long as the bucket lasted: that is neither its end nor its mean."""
    limiter, bucket = limiter_of(), Bucket(10.0)
    drive(limiter, bucket, 0.0, 60.0)
    while limiter.mode is not RateMode.PROBE:
        drive(limiter, bucket, bucket.at + 0.1, bucket.at + 1.0)
    while limiter.mode is RateMode.PROBE:
        drive(limiter, bucket, bucket.at + 0.1, bucket.at + 0.3)
    assert 0.97 * PER_S <= limiter.rate_per_minute / 60.0 <= PER_S


def test_after_a_rejection_some_is_left_in_a_deep_bucket() -> None:
    limiter = limiter_of()
    limiter.exhausted(0.0)
    for step in range(40):
        limiter.take(1.0, 0.1 + step / 10.0)
    stamp = limiter.take(1.0, 4.1)
    assert reject(limiter, stamp, 4.1)
    assert limiter.ready_at(1.0, 4.1) - 4.1 > 2.0 / PER_S


def test_a_rate_that_was_refilled_all_along_is_not_lowered_by_its_probe() -> None:
    """What a shallow bucket refilled while it was full is lost to the measurement."""
    counts = SendCounts()
    measure = RateMeasure(counts)
    counts.sent(1.0, 0.0, idle=True)
    measure.counted(0.0, 0.0, probed=False)
    for step in range(1, 1200):
        counts.sent(1.0, step / 10.0, idle=False)
    held = measure.after_probe(1.0, 119.9, counts.units - 1.0, 10.0, 9.99, 10.5)
    assert held == pytest.approx(9.99)


def test_a_quota_that_rose_manyfold_is_not_taken_for_what_a_deep_bucket_had_saved() -> None:
    """After an hour at one request a minute; it would be climbed to by a few per cent in each probe."""
    counts = SendCounts()
    measure = RateMeasure(counts)
    measure.exhausted(0.0)
    for step in range(20):
        counts.sent(1.0, step * 60.0, idle=step == 0)
    for step in range(1200):
        counts.sent(1.0, 1200.0 + step / 10.0, idle=False)
    held = measure.after_probe(1.0, 1319.9, counts.units - 1.0, 10.0, 1.0 / 60.0, 10.0)
    assert held == pytest.approx(10.0, rel=0.03)


def test_a_limiter_that_begins_with_a_rejection_measures_what_was_refilled_since() -> None:
    """The first token limit that a provider names: nothing had been counted, and what follows is a trickle."""
    limiter, bucket = limiter_of(), Bucket(600.0, level=0.0)
    bucket.level = 0.0
    limiter.exhausted(0.0)
    assert not ask(limiter, bucket, 0.01)
    assert limiter.mode is RateMode.OPEN, "one request measures nothing"
    for step in range(300):
        ask(limiter, bucket, 0.05 + step * 0.01)
        if limiter.mode is not RateMode.OPEN:
            break
    assert limiter.rate_per_minute / 60.0 == pytest.approx(DEEP_MARGIN * PER_S, rel=0.1)


def test_rejections_that_were_taken_for_another_limit_help_to_measure_this_one() -> None:
    """What a deep bucket had saved is in the latest seconds, and not in all that was accepted since the bucket was
    first empty."""
    limiter = limiter_of()
    for step in range(600):
        limiter.take(1.0, step / 60.0)
    first = limiter.take(1.0, 10.0)
    limiter.settle(first, 0.0, 10.0)
    limiter.refused(first)
    for step in range(200):  # slowly at first, so that the bucket saves half of it
        limiter.take(1.0, 10.1 + step / 5.0)
    for step in range(300):
        limiter.take(1.0, 50.1 + step / 30.0)
    last = limiter.take(1.0, 60.0)
    assert reject(limiter, last, 60.0)
    assert limiter.rate_per_minute / 60.0 == pytest.approx(MARGIN * 1.05 * PER_S, rel=0.03)


def window(limiter: RateLimiter, at: float, *, until: float, count: int = 40) -> bool:
    """``count`` requests from ``at`` on, 20 a second, then refusals until ``until``. Whether a limit has shown itself.

    The rejections are taken for another limit's.
    """
    for step in range(count):
        limiter.take(1.0, at + step / 20.0)
    refused: list[tuple[RateStamp, float]] = []
    now = at + count / 20.0
    for pause_s in (0.1, 1.0, 2.0, 4.0, 5.0):
        refused.append((limiter.take(1.0, now), now))
        limiter.settle(refused[-1][0], 0.0, now + 0.05)
        limiter.refused(refused[-1][0])
        limiter.blocked(now + 0.05, now + pause_s)
        now += pause_s
    limiter.blocked(now, until)
    limiter.take(1.0, until)
    return limiter.unblocked(until + 0.5)


def test_a_window_that_two_minutes_had_alike_is_a_limit_whatever_was_suspected() -> None:
    """An outage does not let through 40 twice, a minute apart, and a concurrency limit refuses no lone request."""
    limiter = limiter_of()
    assert not window(limiter, 0.0, until=50.0, count=40)
    assert limiter.snapshot(50.6).mode is RateMode.OPEN, "one may be an outage"
    assert window(limiter, 50.1, until=105.0, count=39)
    assert limiter.mode is RateMode.HOLD
    limiter.check()
    end = limiter.next_tick(105.6)
    if end < 170.0:  # what is left of this window goes first
        limiter.ready_at(1.0, end)
    assert limiter.rate_per_minute == pytest.approx(0.995 * 40.0, rel=0.001)


def test_what_is_left_of_a_window_is_used_up_before_it_is_paced() -> None:
    """It opens again 130 s after the start, or a little later, and the canary that found it open came late."""
    limiter = limiter_of()
    window(limiter, 0.0, until=15.0)
    window(limiter, 61.0, until=100.0)
    assert limiter.mode is RateMode.HOLD
    sent, now = 1, 100.6
    while now < 130.0:
        now = max(now, limiter.ready_at(1.0, now))
        limiter.take(1.0, now)
        sent += 1
    assert 35 <= sent <= 40


def test_windows_that_let_different_numbers_through_are_none() -> None:
    limiter = limiter_of()
    assert not window(limiter, 0.0, until=50.0, count=40)
    assert not window(limiter, 50.1, until=105.0, count=20)
    assert limiter.mode is RateMode.OPEN


def test_a_probe_into_a_known_window_finds_the_quota_that_it_had() -> None:
    limiter = limiter_of()
    window(limiter, 0.0, until=15.0)
    window(limiter, 61.0, until=76.0)
    held = 0.995 * 40.0
    now, stamp = 76.6, None
    while limiter.mode is not RateMode.PROBE or limiter.rate_per_minute < 1.1 * held or not 3.0 < now % 60.0 < 9.0:
        now = max(now + 0.01, limiter.ready_at(1.0, now))
        assert now < 3000.0
        stamp = limiter.take(1.0, now)
    assert stamp is not None
    assert reject(limiter, stamp, now)
    assert limiter.rate_per_minute == pytest.approx(held, rel=0.001)


def test_a_rejection_that_a_window_does_not_explain_ends_the_belief_in_it() -> None:
    """It had let through twenty since it opened."""
    counts, found = SendCounts(), FixedWindow()
    found.began(10.0, 11.0)
    found.quota = 40.0
    for step in range(20):
        counts.sent(1.0, 71.0 + step, idle=step == 0)
    assert not found.explains(counts, 95.0, 20.0)
    assert found.quota is None


def test_edges_narrow_down() -> None:
    found = FixedWindow()
    found.began(10.0, 30.0)
    found.began(75.0, 100.0)
    low, high = found.next_edge(101.0)
    assert (low, high) == (135.0, 150.0)


def test_a_bucket_called_deep_on_thin_evidence_is_tried_as_a_shallow_one_once() -> None:
    """A few requests between two rejections look alike under a small quota, whatever its bucket holds. Held for deep, a
    shallow one would be kept at a fraction of its quota.
    """
    counts = SendCounts()
    measure = RateMeasure(counts)

    def pass_time(start: int, end: int) -> None:
        for second in range(start, end, 10):
            counts.sent(1.0, float(second), idle=False)

    def rejected_while_holding_soon_after(probe_end: float) -> None:
        measure.counted(probe_end, counts.units, probed=True)
        measure.while_holding(1.0, probe_end + 9.0, counts.units, 60.0, 0.1)
        measure.counted(probe_end + 9.0, counts.units, probed=False)

    rejected_while_holding_soon_after(0.0)
    assert measure.deep
    pass_time(20, 300)
    measure.after_probe(1.0, 300.0, counts.units, 60.0, base=0.1, reached=0.16)
    assert not measure.deep
    rejected_while_holding_soon_after(300.0)
    assert measure.deep
    pass_time(320, 600)
    measure.after_probe(1.0, 600.0, counts.units, 60.0, base=0.1, reached=0.16)
    assert measure.deep


def test_two_marks_at_one_rejection_count_a_correction_once_each() -> None:
    counts = SendCounts()
    measure = RateMeasure(counts)
    measure.counted(0.0, 0.0, probed=False)
    counts.sent(1.0, 1.0, idle=False)
    counts.corrected(-1.0, 1.0, 0.0, measure.marks)
    assert [mark.corrected for mark in measure.marks if mark is not None] == [-1.0, -1.0]


def test_the_first_send_begins_a_busy_spell_also_soon_after_a_cooldown() -> None:
    """A cooldown may pass before anything of a new kind was counted: what is sent then is measured from there on."""
    limiter = limiter_of()
    limiter.blocked(0.0, 1.0)
    limiter.unblocked(1.0)
    limiter.take(1.0, 2.0)
    limiter.check()
