"""What the spans between rejections say of a rate."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from headgate.admission.refill import Refill

ENOUGH = 5.5  # begins a trial


def spans(*pieces: tuple[float, float], cost: float = 1.0) -> Refill:
    """One that saw rejections, each so many seconds and so many accepted units after the one before."""
    refill, now, spent = Refill(), 0.0, 0.0
    refill.rejected(spent, cost, now)
    for seconds, units in pieces:
        now += seconds
        spent += units
        refill.rejected(spent, cost, now)
    return refill


def slots(rng: Random, number: int, *, share: float) -> Refill:
    """Rejections at random moments of a client of ``number`` slots, which it may use by ``share`` more or less."""
    ends = [rng.lognormvariate(1.1, 1.0) for _ in range(number)]
    starts = sorted(ends)
    while ends:
        at = ends.pop()
        while at < 600.0:
            starts.append(at)
            at += rng.lognormvariate(1.1, 1.0)
    starts.sort()
    refill, spent = Refill(), 0.0
    moments = sorted(rng.uniform(0.0, 600.0) for _ in range(30))
    for before, now in pairwise(moments):
        spent += round(sum(before <= at < now for at in starts) * rng.uniform(1.0 - share, 1.0 + share))
        refill.rejected(spent, 1.0, now)
    return refill


def test_the_same_refill_again_and_again_is_a_rate() -> None:
    assert spans((10.0, 100.0), (7.0, 70.0), (22.0, 220.0), (4.0, 40.0), (31.0, 310.0)).evidence >= ENOUGH


def test_a_bucket_that_was_full_in_between_costs_little() -> None:
    exact = spans((10.0, 100.0), (7.0, 70.0), (22.0, 220.0), (4.0, 40.0))
    idle = spans((10.0, 100.0), (7.0, 70.0), (30.0, 200.0), (22.0, 220.0), (4.0, 40.0))
    assert 0.0 < exact.evidence - idle.evidence < 1.0


def test_a_rejection_for_something_else_in_between_costs_little() -> None:
    """After it the bucket still held much: that span passes the ceiling, but not together with the one before."""
    rate = spans((10.0, 40.0), (17.0, 68.0), (22.0, 88.0), (14.0, 56.0), (31.0, 124.0))
    both = spans((10.0, 40.0), (17.0, 68.0), (22.0, 88.0), (25.0, 80.0), (4.0, 36.0), (14.0, 56.0), (31.0, 124.0))
    assert both.evidence >= rate.evidence - 1.0


def test_a_quota_that_grew_begins_anew() -> None:
    grown = spans((10.0, 40.0), (17.0, 68.0), (22.0, 88.0), (14.0, 56.0), (30.0, 300.0))
    assert grown.evidence <= 0.0


def test_few_requests_say_nothing() -> None:
    assert spans(*[(1.0, 2.0)] * 2).evidence == 0.0


def test_large_requests_blur_the_spans() -> None:
    """What a request of a thousand tokens found missing may be any part of them."""
    pieces = [(10.0, 9900.0), (7.0, 7050.0), (22.0, 21900.0), (14.0, 14000.0), (9.0, 9050.0)]
    assert 0.0 < spans(*pieces, cost=1000.0).evidence < spans(*pieces, cost=100.0).evidence


def test_slots_are_not_taken_for_a_rate() -> None:
    """Their requests take what they take, so spans between rejections scatter; more so where others use the same."""
    for seed in range(20):
        for share in (0.0, 0.1):
            assert slots(Random(seed), 32, share=share).evidence < ENOUGH, (seed, share)


def test_requests_that_cost_nothing_say_nothing() -> None:
    """Requests without tokens under a suspected token limit: nothing spent, nothing missing, for however long."""
    refill = Refill()
    for number in range(20):
        refill.rejected(0.0, 0.0, 4.0 * number)
    assert refill.evidence == 0.0
    for number in range(20):
        refill.rejected(10.0 * number, float(number % 2), 100.0 + 10.0 * number)
    assert refill.evidence > 0.0
