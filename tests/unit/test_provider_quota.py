"""One quota: what fits, when the next fits, and what the headers would say."""

from __future__ import annotations

import math

import pytest

from headgate.testing.provider.quota import Bucket, FixedWindow


def _taken(quota: Bucket | FixedWindow, now: float) -> int:
    """Take single requests until one does not fit, and count them."""
    count = 0
    while quota.wait_s(1, now) == 0:
        quota.take(1, now)
        count += 1
        assert count < 10_000
    return count


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(per_minute=60, burst=5, now=0)
    assert [_taken(bucket, now) for now in (0, 0.5, 1, 1.5, 4, 100)] == [5, 0, 1, 0, 3, 5]


def test_a_bucket_knows_when_the_next_request_fits() -> None:
    bucket = Bucket(per_minute=120, burst=1, now=0)
    bucket.take(1, 0)
    assert bucket.wait_s(1, 0.1) == pytest.approx(0.4)
    assert bucket.wait_s(1, 0.1 + bucket.wait_s(1, 0.1)) == 0


def test_a_fixed_window_counts_from_zero_at_each_minute() -> None:
    """Across the edge twice the quota passes within a second: a client has to know that (T13)."""
    window = FixedWindow(per_minute=40, phase_s=10)
    assert _taken(window, 0) == 40
    assert window.wait_s(1, 9.5) == pytest.approx(0.5)
    assert _taken(window, 10) == 40
    assert _taken(window, 69.9) == 0
    assert _taken(window, 70) == 40


@pytest.mark.parametrize("quota", [Bucket(600, 10, 0), FixedWindow(10, 0)])
def test_what_never_fits_waits_for_ever_and_takes_nothing(quota: Bucket | FixedWindow) -> None:
    assert quota.wait_s(11, 0) == math.inf
    assert _taken(quota, 0) == 10


@pytest.mark.parametrize("quota", [Bucket(0, 2, 0), FixedWindow(0, 0)])
def test_a_rate_of_zero_lets_nothing_more_through(quota: Bucket | FixedWindow) -> None:
    _taken(quota, 0)
    assert quota.wait_s(1, 1e6) == math.inf


@pytest.mark.parametrize("quota", [Bucket(60, 10, 0), FixedWindow(10, 0)])
def test_taking_more_than_there_is_empties_the_quota_and_no_more(quota: Bucket | FixedWindow) -> None:
    quota.take(25, 0)
    quota.check()
    assert quota.state(0).remaining == 0
    assert _taken(quota, 60) == 10


def test_a_smaller_bucket_keeps_what_was_used() -> None:
    bucket = Bucket(60, 10, 0)
    bucket.take(4, 0)
    bucket.retune(60, 5, 0)
    assert _taken(bucket, 0) == 5
    bucket.retune(60, 50, 0)
    assert _taken(bucket, 0) == 0


def test_a_window_that_changes_keeps_what_was_used_in_this_minute() -> None:
    window = FixedWindow(10, 0)
    assert _taken(window, 1) == 10
    window.retune(12, 0)
    assert _taken(window, 2) == 2
    window.retune(5, 0)
    assert window.state(3).remaining == 0
    assert _taken(window, 60) == 5


def test_states_say_limit_remaining_and_reset() -> None:
    bucket, window = Bucket(600, 10, 0), FixedWindow(600, 0)
    bucket.take(4, 0)
    window.take(4, 15)
    state = bucket.state(0.1)
    assert state.limit == 600
    assert [state.remaining, state.reset_s] == pytest.approx([7, 0.3])
    state = window.state(15)
    assert (state.limit, state.remaining, state.reset_s) == (600, 596, 45)
