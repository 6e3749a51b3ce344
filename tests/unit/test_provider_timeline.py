"""How busy a model was over time: the slices add up to its account, and stay few."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.testing.provider import Accepted, Capacity, ModelSpec, ProviderModel, ProviderRequest, ProviderSpec, Slice
from headgate.testing.provider.timeline import SLICE_S, SLICES_MAX, Timeline


def model() -> ProviderModel:
    return ProviderModel(ProviderSpec(models={"m": ModelSpec(concurrency=2)}))


def accepted(provider: ProviderModel, now: float) -> int:
    decision = provider.begin(ProviderRequest("m", "Why?"), now)
    assert isinstance(decision, Accepted)
    return decision.request_id


def test_slices_of_a_quarter_second() -> None:
    provider = model()
    one = accepted(provider, 10.0)
    two = accepted(provider, 10.125)
    provider.begin(ProviderRequest("m", "Full?"), 10.25)
    provider.end(one, 10.5)
    provider.change("m", Capacity(concurrency=1), 10.5)
    provider.end(two, 10.625)
    assert provider.timeline("m", 10.625) == (
        Slice(0.0, 0.25, busy_s=0.375, capacity_s=0.5, accepted=2, rejected=0),
        Slice(0.25, 0.25, busy_s=0.5, capacity_s=0.5, accepted=0, rejected=1),
        Slice(0.5, 0.125, busy_s=0.125, capacity_s=0.125, accepted=0, rejected=0),
    )


def test_no_limit_has_no_capacity() -> None:
    provider = ProviderModel(ProviderSpec(models={"m": ModelSpec()}))
    provider.end(accepted(provider, 0.0), 0.1)
    (only,) = provider.timeline("m", 0.1)
    assert only.capacity_s is None


def test_counts_that_start_again_start_the_slices_again() -> None:
    provider = model()
    accepted(provider, 0.0)
    provider.reset_stats(5.0)
    assert provider.timeline("m", 5.125) == (Slice(0.0, 0.125, 0.125, 0.25, 0, 0),)


@given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 9), st.none() | st.integers(0, 9), st.booleans())))
def test_slices_add_up_follow_each_other_and_stay_few(steps: list[tuple[float, int, int | None, bool]]) -> None:
    timeline, now, busy_s = Timeline(3.0), 3.0, 0.0
    for passed, in_flight, concurrency, taken in steps:
        now += passed
        busy_s += passed * in_flight
        timeline.advance(now, in_flight, concurrency)
        timeline.count(accepted=taken)
    slices = timeline.slices()
    assert len(slices) <= SLICES_MAX
    assert sum(one.busy_s for one in slices) == pytest.approx(busy_s, abs=1e-6)
    assert sum(one.seconds for one in slices) == pytest.approx(now - 3.0, abs=1e-6)
    assert sum(one.accepted for one in slices) == sum(taken for *_, taken in steps)
    assert sum(one.rejected for one in slices) == sum(not taken for *_, taken in steps)
    assert all(after.at_s == pytest.approx(before.at_s + before.seconds) for before, after in pairwise(slices))


def test_an_hour_is_told_in_longer_slices() -> None:
    timeline = Timeline(0.0)
    timeline.advance(3600.0, 1, 4)
    slices = timeline.slices()
    assert len(slices) <= SLICES_MAX
    assert slices[0].seconds == 4 * SLICE_S
    assert all(one.busy_s == pytest.approx(one.seconds) for one in slices)
    assert all(one.capacity_s == pytest.approx(4 * one.seconds) for one in slices)
