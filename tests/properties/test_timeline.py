"""Samples over time: bounded, never out of order, and never far from the latest, however long the run."""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.reports.histogram import BOUNDS_S, BUCKETS, quantile_s
from headgate.reports.series import BINS_MAX, rates
from headgate.reports.timeline import ABSENT, FIRST_INTERVAL_S, Timeline

STEPS = st.lists(st.sampled_from([0.0, 0.004, 0.05, 0.11, 0.3, 7.0, 400.0]), max_size=200)


@given(steps=STEPS, most=st.integers(2, 20), late=st.integers(0, 40))
def test_a_timeline_keeps_a_bounded_part_of_what_it_was_offered(steps: list[float], most: int, late: int) -> None:
    """Asked as the engine asks it: often, but it takes a sample only when one is due; and one more at the end."""
    line, longest, last_offer = Timeline[str](most=most), 0.0, 0.0
    offered: dict[float, tuple[float, float]] = {}
    for number, now in enumerate(accumulate(steps, initial=0.0)):
        longest, last_offer = max(longest, now - last_offer), now
        if now < line.due_at:
            continue
        values = {"counter": float(number)} | ({"late": float(-number)} if number >= late else {})
        offered[now] = (float(number), values.get("late", ABSENT))
        line.add(now, values)
        line.check()
        assert line.times[-1] == now, "the latest is there"
    assert line.times[0] == 0.0, "the first stays"
    assert all(earlier < later for earlier, later in pairwise(line.times))
    lates = line.columns.get("late", [ABSENT] * len(line.times))
    kept = list(zip(line.columns["counter"], lates, strict=True))
    assert kept == [offered[at] for at in line.times], "samples of one time stay together"
    # A sample comes later than it is wanted by the time between two offers at most; that adds up over those dropped.
    widest = 2 * line.interval_s * (1 + longest / FIRST_INTERVAL_S)
    assert all(later - earlier <= widest for earlier, later in pairwise(line.times))
    assert line.interval_s / FIRST_INTERVAL_S in {2.0**power for power in range(40)}


@given(count=st.integers(1, 5000), most=st.integers(2, 64))
def test_a_timeline_that_was_full_stays_at_least_half_full(count: int, most: int) -> None:
    line = Timeline[str](most=most)
    for number in range(count):
        if number * FIRST_INTERVAL_S * 1.001 >= line.due_at:
            line.add(number * FIRST_INTERVAL_S * 1.001, {"n": number})
    assert len(line.times) >= min(count, most // 2)
    taken = [int(at) for at in line.columns["n"]]
    strides = {later - earlier for earlier, later in pairwise(taken[:-1])}
    assert max(strides, default=1) <= 2 * min(strides, default=1), "they lie about evenly"


def test_a_sample_at_the_time_of_the_latest_takes_its_place() -> None:
    line = Timeline[str]((0.0, 1.0), {"n": (1, 2)})
    line.add(1.0, {"n": 3, "m": 4})
    assert (line.times, line.columns) == ([0.0, 1.0], {"n": [1, 3], "m": [ABSENT, 4]})
    with pytest.raises(AssertionError, match="backwards"):
        line.add(0.5, {})


@given(samples=st.integers(1, 400), seed=st.integers(0, 9))
def test_rates_count_everything_in_few_bins(samples: int, seed: int) -> None:
    rng = random.Random(seed)
    times = list(accumulate(10 ** rng.uniform(-3, 4) for _ in range(samples)))
    counter = [float(n) for n in accumulate(rng.randrange(10) for _ in times)]
    found = rates(times, counter)
    assert len(found.counts) <= BINS_MAX
    assert sum(found.counts) == counter[-1] - counter[0]
    assert sum(found.widths_s) == pytest.approx(times[-1] - times[0])
    assert all(width > 0 for width in found.widths_s)


@given(
    durations=st.lists(st.floats(0.002, 3000), min_size=1, max_size=60), share=st.sampled_from([0.0, 0.5, 0.95, 1.0])
)
def test_a_quantile_lies_in_the_bucket_of_the_duration_that_it_stands_for(durations: list[float], share: float) -> None:
    counts = [0] * BUCKETS
    for duration in durations:
        counts[bisect_left(BOUNDS_S, duration)] += 1
    found = quantile_s(counts, share)
    exact = sorted(durations)[max(0, -(-int(share * 1000) * len(durations) // 1000) - 1)]
    assert found is not None
    assert found / 1.34 <= exact <= found * 1.34


def test_durations_beyond_the_bounds_count_and_no_duration_is_none() -> None:
    counts = [0] * BUCKETS
    assert quantile_s(counts, 0.5) is None
    counts[bisect_left(BOUNDS_S, 10 * BOUNDS_S[-1])] += 1
    counts[bisect_left(BOUNDS_S, 0.0)] += 1
    assert quantile_s(counts, 1.0) == BOUNDS_S[-1] >= 3600
    assert 0.0 <= (quantile_s(counts, 0.2) or -1) <= 0.001
