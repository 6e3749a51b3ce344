"""Forecasts: what holds of every sample, and that ranges hold the truth as often as they say."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf, isclose
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.engine.forecast import Range, ScopeLoad, WorkLeft, finish_time, forecast_usage
from headgate.errors import ConfigError
from headgate.values import Usage

usages = st.builds(Usage, st.integers(0, 5000), st.integers(0, 5000))
samples = st.lists(st.tuples(st.none() | usages, st.none() | usages), min_size=1, max_size=12)


def work(sample: list[tuple[Usage | None, Usage | None]], cells: int = 100, waste: float = 1.0) -> list[WorkLeft]:
    columns = zip(*sample, strict=True)
    return [WorkLeft(name, f"a/{name}", cells, part, waste) for name, part in zip("xy", columns, strict=True)]


def ranges(forecast: object) -> list[Range]:
    names = ("input_tokens", "output_tokens", "cost")
    return [found for name in names if (found := getattr(forecast, name)) is not None]


@given(samples, st.integers(0, 10_000), st.integers(0, 99))
def test_parts_add_up_and_a_price_in_proportion_costs_in_proportion(
    sample: list[tuple[Usage | None, Usage | None]], cells: int, seed: int
) -> None:
    rng = random.Random(seed)
    found = forecast_usage(work(sample, cells), rng=rng, price=lambda _, usage: 3.0 * usage.input_tokens)
    assert found.sampled == len(sample)
    assert isclose(found.input_tokens.likely, sum(one.input_tokens.likely for one in found.columns))
    assert found.cost is not None
    assert abs(found.cost.likely - 3 * found.input_tokens.likely) <= 3, "prices are of whole tokens"
    for column in found.columns:
        ended = [one for one in next(w for w in work(sample) if w.column == column.column).sample if one is not None]
        mean = sum(one.output_tokens for one in ended) / len(ended) if ended else 0
        assert isclose(column.output_tokens.likely, cells * mean, abs_tol=1e-6)
    if not cells:
        assert all(one == Range(0, 0, 0) for one in ranges(found))


@pytest.mark.parametrize("said", [float("nan"), inf, -1.0, "three"])
def test_a_price_that_is_no_money_is_refused_by_name(said: Any) -> None:
    """An assertion of ours failed, after the sample was paid for."""

    def price(_: str, __: Usage) -> Any:
        return said

    with pytest.raises(ConfigError, match=f"price= said {said!r} for "):
        forecast_usage(work([(Usage(1, 1), None)], 10), rng=random.Random(0), price=price)


@given(samples, st.integers(1, 1000), st.integers(0, 99))
def test_the_same_seed_forecasts_the_same_and_rows_in_another_order_the_same_likely(
    sample: list[tuple[Usage | None, Usage | None]], cells: int, seed: int
) -> None:
    once, again = (forecast_usage(work(sample, cells), rng=random.Random(seed)) for _ in range(2))
    assert once == again
    other = forecast_usage(work(sample[::-1], cells), rng=random.Random(seed))
    assert isclose(other.input_tokens.likely, once.input_tokens.likely)
    assert forecast_usage(work(sample, cells), rng=random.Random(seed), price=lambda model, _: None).cost is None


@given(usages, st.integers(1, 12), st.integers(0, 1000), st.floats(1, 4))
def test_rows_that_are_all_alike_leave_no_doubt(usage: Usage, rows: int, cells: int, waste: float) -> None:
    found = forecast_usage(work([(usage, usage)] * rows, cells, waste), rng=random.Random(1))
    for range_, tokens in ((found.input_tokens, usage.input_tokens), (found.output_tokens, usage.output_tokens)):
        assert all(isclose(end, 2 * cells * waste * tokens) for end in (range_.low, range_.likely, range_.high))


@pytest.mark.parametrize("left", [10, 400])
def test_the_range_holds_the_truth_about_as_often_as_it_says(left: int) -> None:
    """Answers of lognormal length, 40 of them seen: of 100 runs, some 90 end within their range, however long."""
    rng = random.Random(7)
    held = 0
    for _ in range(100):
        seen = [Usage(100, int(80 * rng.lognormvariate(0, 0.7))) for _ in range(40)]
        truth = sum(int(80 * rng.lognormvariate(0, 0.7)) for _ in range(left))
        found = forecast_usage([WorkLeft("x", "a/x", left, tuple(seen))], rng=rng).output_tokens
        held += found.low <= truth <= found.high
    assert 80 <= held <= 99


load = st.builds(
    ScopeLoad,
    scope=st.sampled_from("ab"),
    slot_s=st.floats(0, 1e6),
    requests=st.integers(1, 1000),
    slots=st.tuples(st.floats(1, 100), st.floats(0, 100), st.floats(0, 100)).map(
        lambda ends: Range(ends[0], ends[0] + ends[1], ends[0] + ends[1] + ends[2])
    ),
    rates=st.just(()) | st.tuples(st.tuples(st.just("requests"), st.just(Range(10, 20, 30)), st.floats(1, 100))),
)


@given(st.lists(load, min_size=1, max_size=4))
def test_the_slowest_limit_sets_the_time_and_more_work_never_takes_less(loads: list[ScopeLoad]) -> None:
    seconds, pace = finish_time(loads)
    alone = [finish_time([one]) for one in loads]
    assert seconds.likely == max(one.likely for one, _ in alone)
    assert pace in {name for one, name in alone if one.likely == seconds.likely}
    twice, _ = finish_time([replace(one, slot_s=2 * one.slot_s) for one in loads])
    assert twice.low >= seconds.low
    assert twice.likely >= seconds.likely
    assert twice.high >= seconds.high
    wider, _ = finish_time([replace(one, slots=Range(one.slots.low, one.slots.likely, inf)) for one in loads])
    assert wider.low <= seconds.low


def test_a_rate_takes_what_it_takes() -> None:
    slots = Range(10, 10, 10)
    seconds, pace = finish_time([ScopeLoad("a", 100.0, 10_000, slots, (("requests", Range(60, 120, 180), 60.0),))])
    assert (seconds, pace) == (Range(60, 120, 180), "a: requests a minute")
